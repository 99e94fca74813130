"""The options of generation with vLLM: which of them a team supports."""

import dataclasses
from typing import Any

from .checking import check


# Of an engine within the process, of NCCL, or of requests: no server is given them by a team
_WITHOUT_EFFECT = (
    *("vllm_model_impl", "vllm_enable_sleep_mode", "vllm_structured_outputs_regex", "vllm_group_port"),
    *("vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_tensor_parallel_size"),
)

# TRL's modes of the importance-sampling correction
_CORRECTIONS = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")


def check_vllm_options(args: Any):
    """
    Check the options of generation with vLLM; nothing with `use_vllm=False`.

    Args:
        args ([`TeamTRConfig`]): The options.

    Raises:
        `ValueError`: Naming the option, what was given and what is allowed.
    """
    bound = args.vllm_max_logp_difference
    check(
        bound is None or bound > 0,
        f"`vllm_max_logp_difference` must be a positive number of nats, or `None` for no check, got {bound}.",
    )
    if not args.use_vllm:
        return
    check(
        args.vllm_mode == "server",
        f"`vllm_mode={args.vllm_mode!r}` is not supported by TeamTRTrainer yet: all agents speak through vLLM servers. Start one "
        "(`vllm serve`), and set `vllm_mode='server'`; or leave `use_vllm=False`.",
    )
    mode = args.vllm_importance_sampling_mode
    check(
        not args.vllm_importance_sampling_correction or mode in _CORRECTIONS,
        f"`vllm_importance_sampling_mode` must be one of {', '.join(repr(each) for each in _CORRECTIONS)}, got {mode!r}.",
    )
    check(
        not (args.vllm_importance_sampling_correction and args.loss_type == "vespo") or mode.startswith("token_"),
        f"`loss_type='vespo'` weighs whole sequences itself, so `vllm_importance_sampling_mode` must be 'token_truncate' or "
        f"'token_mask', got {mode!r}.",
    )
    defaults = {field.name: field.default for field in dataclasses.fields(args)}
    given = [f"{name}={getattr(args, name)!r}" for name in _WITHOUT_EFFECT if getattr(args, name) != defaults[name]]
    check(
        not given,
        f"{', '.join(f'`{each}`' for each in given)} would have no effect: a vLLM server is told so when it is started, by its own "
        "flags (such as `--max-model-len`). Leave it out.",
    )
    check(
        args.vllm_server_timeout > 0,
        f"`vllm_server_timeout` must be a positive number of seconds, got {args.vllm_server_timeout}.",
    )
    probes = [name for name in ("log_occupancy", "log_certificate") if getattr(args, name)]
    check(
        not probes,
        f"`{'` and `'.join(probes)}` is not supported with `use_vllm=True`: it generates with the policy before an update too, and "
        "the servers have the one after it. Leave it `False`, or leave `use_vllm=False`.",
    )
