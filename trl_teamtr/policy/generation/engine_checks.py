"""Which agents share an engine in this process, and how it is made for them."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from ..speaker import Speaker
from .engine_settings import EngineSettings
from .servable import base_of, is_adapter, is_quantized
from .server_checks import start_for


def share_engines(speakers: Sequence[Speaker]) -> list[list[Speaker]]:
    """
    `speakers`, those of one engine together: adapters on one base, and frozen agents that are that base. An agent that trains
    all its weights has an engine for itself.
    """
    groups: dict[Any, list[Speaker]] = {}
    for speaker in speakers:
        base = base_of(speaker)
        same = os.path.realpath(base) if os.path.isdir(base) else base
        alone = speaker.agent.trainable and not is_adapter(speaker)
        groups.setdefault((same, speaker.policy.speaking_dtype, speaker.name if alone else None), []).append(speaker)
    return list(groups.values())


def check_engines(groups: Sequence[Sequence[Speaker]], settings: EngineSettings):
    """
    Raise unless the agents of each of `groups` can speak through an engine of this process.

    Raises:
        `ValueError`: Names the agent or the option.
    """
    speakers = [speaker for group in groups for speaker in group]
    for speaker in speakers:
        _check_agent(speaker)
    share = settings.memory * len(groups)
    if share > 1:
        bases = ", ".join(f"{base_of(group[0])!r} for {', '.join(repr(s.name) for s in group)}" for group in groups)
        raise ValueError(
            f"The team has {len(groups)} vLLM engines ({bases}), each with a share of {settings.memory:g} of the device's memory: "
            f"{share:g} in all. Set `vllm_gpu_memory_utilization` below {1 / len(groups):.2g}, or train adapters "
            "(`peft_config`) on one base, which share an engine."
        )
    device = speakers[0].policy.accelerator.device.type
    if settings.sleeps and device == "cpu":
        raise ValueError(
            "`vllm_enable_sleep_mode=True` moves the weights of an engine to the memory of the host, and the run is on a CPU. "
            "Leave it `False`."
        )


def _check_agent(speaker: Speaker):
    name = speaker.name
    if speaker.agent.vllm_server_base_url is not None:
        raise ValueError(
            f"Agent {name!r} has `vllm_server_base_url`, which has no effect with `vllm_mode='colocate'`. Leave it out, or set "
            "`vllm_mode='server'`."
        )
    if not base_of(speaker):
        raise ValueError(
            f"Agent {name!r} has a model that was loaded from no path, so no vLLM engine can load the same. Save it, and pass the "
            "path."
        )
    if is_quantized(speaker):
        raise ValueError(
            f"Agent {name!r} has a quantized model, which an engine in this process does not load. Start a server with its "
            "`--quantization` (`vllm_mode='server'`), or leave `quantization_config` out."
        )


def engine_arguments(speakers: Sequence[Speaker], settings: EngineSettings) -> dict[str, Any]:
    """
    Arguments of `vllm.LLM` for the agents of one engine.

    Raises:
        `ValueError`: If an adapter cannot be served, or `vllm_max_model_length` is less than the agents read and write.
    """
    start = start_for(speakers)
    length = None if start.max_length == sys.maxsize else start.max_length
    if settings.max_length is not None:
        if start.max_length > settings.max_length:
            raise ValueError(
                f"`vllm_max_model_length={settings.max_length}`, but {', '.join(repr(s.name) for s in speakers)} read and write up "
                f"to {start.max_length} tokens. Leave it out, or lower `max_context_length`."
            )
        length = settings.max_length
    arguments = {
        "model": start.model,
        "revision": settings.revision,
        "trust_remote_code": settings.trust_remote_code or any(s.agent.trust_remote_code for s in speakers),
        "skip_tokenizer_init": True,  # it is given ids and returns ids
        "dtype": start.dtype,
        "max_model_len": length,
        "max_num_seqs": settings.rows,
        "gpu_memory_utilization": settings.memory,
        "enable_sleep_mode": settings.sleeps,
        "model_impl": settings.model_impl,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        # As TRL's: an engine of each process, which was launched by others
        "distributed_executor_backend": "external_launcher",
    }
    if start.ranks:
        # The version before is unloaded first, so that each agent has one
        adapters = {"enable_lora": True, "max_lora_rank": start.max_lora_rank, "max_loras": start.num_agents}
        arguments |= adapters
    if speakers[0].policy.accelerator.device.type == "cpu":
        # Where vLLM 0.32 splits a prompt, it takes back a random number, which a generator of a CPU cannot do. And a CPU is for
        # trying, which compilation would delay by most of a minute
        arguments |= {"enable_chunked_prefill": False, "enforce_eager": True}
    else:
        arguments["max_num_batched_tokens"] = max(4096, settings.rows)  # TRL's: vLLM's own takes more of a small share
    return arguments
