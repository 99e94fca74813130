"""The options of generation with vLLM: which of them a team supports."""

import dataclasses
from typing import Any

from .checking import check


# Of an engine within the process: a server has flags of its own
_OF_ENGINES = (
    *("vllm_model_impl", "vllm_enable_sleep_mode", "vllm_gpu_memory_utilization", "vllm_max_model_length"),
    "vllm_tensor_parallel_size",
)
_OF_SERVERS = ("vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout")

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
        args.vllm_mode in ("server", "colocate"),
        f"`vllm_mode` must be 'server', for vLLM servers, or 'colocate', for engines in this process, got {args.vllm_mode!r}.",
    )
    _check_correction(args)
    _refuse(
        args,
        ("vllm_group_port",),
        "would have no effect: weights are not sent over NCCL, which could not be tried for want of a GPU. Servers read them from "
        "`vllm_sync_dir`, engines in this process take them from memory. Leave it out.",
    )
    _refuse(
        args, ("vllm_structured_outputs_regex",), "would have no effect: agents write what they like. Leave it out."
    )
    if args.vllm_mode == "server":
        _check_server(args)
    else:
        _check_colocate(args)
    probes = [name for name in ("log_occupancy", "log_certificate") if getattr(args, name)]
    check(
        not probes,
        f"`{'` and `'.join(probes)}` is not supported with `use_vllm=True`: it generates with the policy before an update too, and "
        "vLLM has the one after it. Leave it `False`, or leave `use_vllm=False`.",
    )


def _check_correction(args: Any):
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


def _refuse(args: Any, names: tuple[str, ...], why: str):
    """Raise if one of `names` is not at its default."""
    defaults = {field.name: field.default for field in dataclasses.fields(args)}
    given = [f"`{name}={getattr(args, name)!r}`" for name in names if getattr(args, name) != defaults[name]]
    check(not given, f"{', '.join(given)} {why}")


def _check_server(args: Any):
    _refuse(
        args,
        _OF_ENGINES,
        "would have no effect: a vLLM server is told so when it is started, by its own flags (such as `--max-model-len`). Leave it "
        "out, or set `vllm_mode='colocate'`.",
    )
    check(
        args.vllm_server_timeout > 0,
        f"`vllm_server_timeout` must be a positive number of seconds, got {args.vllm_server_timeout}.",
    )


def _check_colocate(args: Any):
    # TRL's default, so that it may have been left out by those who start servers
    hint = "Leave it out, or set `vllm_mode='server'`."
    _refuse(
        args, _OF_SERVERS, f"would have no effect with `vllm_mode='colocate'`: engines are in this process. {hint}"
    )
    check(
        args.vllm_tensor_parallel_size == 1,
        f"`vllm_tensor_parallel_size={args.vllm_tensor_parallel_size}` is not supported with `vllm_mode='colocate'`: each process "
        "has engines of its own and samples its own rows. Leave it 1, or start servers with `--tensor-parallel-size` "
        "(`vllm_mode='server'`).",
    )
    check(
        not args.offload_idle_agents,
        "`offload_idle_agents=True` is not supported with `vllm_mode='colocate'`: it makes room for one agent at a time, and "
        "engines of all agents are beside it. Leave it `False`, set `vllm_enable_sleep_mode=True`, or start servers "
        "(`vllm_mode='server'`).",
    )
    share, length = args.vllm_gpu_memory_utilization, args.vllm_max_model_length
    check(
        0 < share <= 1,
        f"`vllm_gpu_memory_utilization` is a share of the memory of a device, above 0 and up to 1, got {share}.",
    )
    check(length is None or length >= 2, f"`vllm_max_model_length` must be at least 2 or `None`, got {length}.")
