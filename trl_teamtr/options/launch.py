"""What a launch brings beside the config: a mixed precision, and operators that DeepSpeed compiles at their first use."""

import time
from datetime import datetime
from pathlib import Path

import psutil
from accelerate.utils import is_deepspeed_available, parse_flag_from_env
from trl import GRPOConfig

from .checking import check


PATIENCE = 60.0  # seconds


def check_precision(args: GRPOConfig):
    """
    Raise `ValueError` if the launch asks for a mixed precision that `args` turns off. Without DeepSpeed the launch's would
    be used in silence; DeepSpeed fails in the first backward pass.
    """
    own = "fp16" if args.fp16 else "bf16" if args.bf16 else "no"
    check(
        args.mixed_precision == own,
        f"The launch asks for the mixed precision {args.mixed_precision!r} (`mixed_precision` of accelerate's config, or "
        f"`--mixed_precision`), but `bf16` and `fp16` are off. Set `{args.mixed_precision}: true`, or launch with "
        "`--mixed_precision no`.",
    )


def uses_deepspeed(args: GRPOConfig) -> bool:
    """Whether DeepSpeed will be used, as transformers decides it. Known before `args` has seen its devices."""
    return is_deepspeed_available() and (bool(args.deepspeed) or parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"))


def offloads_optimizer(args: GRPOConfig) -> bool:
    """Whether DeepSpeed keeps the moments in CPU memory, and steps there with an operator of its own."""
    if args.deepspeed_plugin is None:
        return False
    zero = args.deepspeed_plugin.deepspeed_config.get("zero_optimization", {})
    return zero.get("offload_optimizer", {}).get("device", "none") != "none"


def refuse_abandoned_build(name: str, patience: float = PATIENCE):
    """
    Raise if an operator of DeepSpeed is locked by a build that is not of this launch, and that does not end. A process
    that is killed while it compiles leaves its lock, for which every later launch would wait without end or message.

    Args:
        name (`str`): The operator, as DeepSpeed names it.
        patience (`float`, *optional*, defaults to `60.0`): Seconds to wait for another launch's build.

    Raises:
        `RuntimeError`: Names the file.
    """
    from torch.utils.cpp_extension import _get_build_directory

    # `torch.utils.cpp_extension` holds a `FileBaton` of this name while it compiles
    lock = Path(_get_build_directory(name, verbose=False)) / "lock"
    end = time.monotonic() + patience
    while (since := _locked_since(lock)) is not None:
        if since > psutil.Process().create_time():
            return  # of this launch, whose processes begin together and compile later: PyTorch waits for it
        if time.monotonic() >= end:
            raise RuntimeError(
                f"DeepSpeed's operator {name!r} has been locked by a build since "
                f"{datetime.fromtimestamp(since):%Y-%m-%d %H:%M:%S}, before this launch: {lock}. A launch that was killed "
                "while it compiled leaves this file, and every later one waits for it without end. Delete it, and launch "
                "again. If another launch is compiling at this moment, wait until it has begun to train."
            )
        time.sleep(0.1)


def _locked_since(lock: Path) -> float | None:
    try:
        return lock.stat().st_mtime
    except FileNotFoundError:  # looked for in one step, since it may be released between two
        return None
