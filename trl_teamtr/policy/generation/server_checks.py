"""What a vLLM server must have been started with to serve the agents of a team."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import requests
import torch

from ..speaker import Speaker
from .client import ServerClient
from .servable import base_of, is_adapter, is_quantized, rank_of
from .server_start import ServerStart


def check_agents(speakers: Sequence[Speaker], url: str):
    """
    Raise `ValueError` unless `speakers` can be served by one server, at `url`: all have one base, and an agent that trains all
    its weights has the server for itself.
    """
    whole = [speaker.name for speaker in speakers if speaker.agent.trainable and not is_adapter(speaker)]
    names = ", ".join(repr(speaker.name) for speaker in speakers)
    if whole and len(speakers) > 1:
        raise ValueError(
            f"Agent {whole[0]!r} trains all its weights, so it needs a vLLM server of its own, but {names} share {url}. Start one "
            "more server, and give the agent its URL: `Agent(..., vllm_server_base_url=...)`. Or train an adapter "
            "(`peft_config`): adapters on one base share a server."
        )
    bases = {speaker.name: base_of(speaker) for speaker in speakers}
    nameless = [name for name, base in bases.items() if not base]
    if nameless:
        raise ValueError(
            f"Agent {nameless[0]!r} has a model that was loaded from no path, so no vLLM server can have the same. Save it, and "
            "pass the path to the agent and to the server."
        )
    if len(set(bases.values())) > 1:
        found = ", ".join(f"{name!r} has {base!r}" for name, base in bases.items())
        raise ValueError(
            f"The agents at {url} have different base models ({found}), and a vLLM server has one. Start a server for each, and "
            "say which agent uses which: `Agent(..., vllm_server_base_url=...)`."
        )


def check_server(client: ServerClient, speakers: Sequence[Speaker]):
    """
    Raise unless the server is up and was started with what `speakers` need.

    Raises:
        `ConnectionError`: If no server answers within `vllm_server_timeout` seconds.
        `ValueError`: Lists everything that is missing, each with the flag to pass.
    """
    wait_until_ready(client, speakers)
    try:
        info = client.get_server_info()
    except requests.HTTPError as error:
        raise ValueError(
            f"The vLLM server at {client.server_url} does not tell how it was started ({error}). Start it with "
            "`VLLM_SERVER_DEV_MODE=1` in its environment."
        ) from error
    missing = [
        *_check_model(info["model_config"], speakers),
        *_check_adapters(client, info, speakers),
        *_check_cpu(info),
    ]
    if missing:
        listed = "\n".join(f"- {fault}" for fault in missing)
        raise ValueError(
            f"The vLLM server at {client.server_url} was not started as {', '.join(repr(s.name) for s in speakers)} need it:\n"
            f"{listed}\nStart it again with these flags."
        )


def wait_until_ready(client: ServerClient, speakers: Sequence[Speaker]):
    """Wait until the server answers; `ConnectionError` after `vllm_server_timeout` seconds."""
    try:
        client.wait_for_server_ready(client.poll_interval)
    except TimeoutError as error:
        raise ConnectionError(
            f"No vLLM server answered at {client.server_url} within {client.server_timeout:g} seconds "
            f"(`vllm_server_timeout`). Start one: `{start_for(speakers)}`, or set `vllm_server_base_url`."
        ) from error


def start_for(speakers: Sequence[Speaker]) -> ServerStart:
    """How to start a server for `speakers`."""
    ranks = [rank_of(speaker) for speaker in speakers if is_adapter(speaker)]
    length = max(speaker.max_view_length for speaker in speakers)
    return ServerStart(base_of(speakers[0]), _name(speakers[0].policy.speaking_dtype), len(speakers), ranks, length)


def _check_model(served: dict[str, Any], speakers: Sequence[Speaker]) -> list[str]:
    found, base = [], base_of(speakers[0])
    if not _is_same(served["model"], base):
        found.append(f"its model is {served['model']!r}, theirs is {base!r}: `--model {base}`")
    needed = start_for(speakers).max_length
    if needed < sys.maxsize and served["max_model_len"] < needed:
        found.append(
            f"it reads at most {served['max_model_len']} tokens, they read up to {needed}: `--max-model-len {needed}` (or lower "
            "`max_context_length`)"
        )
    if served["logprobs_mode"] != "processed_logprobs":
        found.append(
            f"its log-probabilities are {served['logprobs_mode']!r}, without the temperature: `--logprobs-mode "
            "processed_logprobs`"
        )
    if served["generation_config"] != "vllm":
        found.append(
            f"it samples by generation config {served['generation_config']!r} of its model: `--generation-config vllm`"
        )
    if (served["quantization"] is not None) != is_quantized(speakers[0]):
        found.append(
            f"its weights are {served['quantization'] or 'not quantized'}, theirs are "
            f"{'quantized' if is_quantized(speakers[0]) else 'not'}: the same `--quantization` as `quantization_config`, or none"
        )
    dtype = served["dtype"].removeprefix("torch.")
    other = [s for s in speakers if _name(s.policy.speaking_dtype) != dtype]
    if other:
        expected = _name(other[0].policy.speaking_dtype)
        found.append(f"it computes in {dtype}, agent {other[0].name!r} would here in {expected}: `--dtype {expected}`")
    return found


def _check_adapters(client: ServerClient, info: dict[str, Any], speakers: Sequence[Speaker]) -> list[str]:
    start = start_for(speakers)
    if not start.ranks:
        return []
    found, lora, rank, count = list[str](), info["lora_config"], start.max_lora_rank, start.max_loras
    if lora is None:
        found.append(f"it takes no adapters: `--enable-lora --max-lora-rank {rank} --max-loras {count}`")
    else:
        if lora["max_lora_rank"] < rank:
            found.append(f"its adapters have rank {lora['max_lora_rank']} at most: `--max-lora-rank {rank}`")
        if lora["max_loras"] < count:
            found.append(f"it holds {lora['max_loras']} adapters, {count} are needed: `--max-loras {count}`")
    if not client.takes_adapters():
        found.append("it takes no adapters while it runs: `VLLM_ALLOW_RUNTIME_LORA_UPDATING=1` in its environment")
    replicas = info["parallel_config"]["data_parallel_size"]
    if replicas > 1:
        found.append(
            f"it has {replicas} replicas, and a new adapter reaches one of them: `--data-parallel-size 1` (tensor parallelism "
            "may be larger)"
        )
    return found


def _check_cpu(info: dict[str, Any]) -> list[str]:
    # Where vLLM 0.32 splits a prompt, it takes back a random number of the request, which a generator of a CPU cannot do
    splits = info["scheduler_config"]["enable_chunked_prefill"]
    if info["device_config"]["device"] != "cpu" or not splits:
        return []
    return [
        "on a CPU its engine dies where it splits a prompt of a request with a seed: `--no-enable-chunked-prefill`"
    ]


def _is_same(served: str, own: str) -> bool:
    """Whether two names of a model mean the same: equal, or one folder."""
    return served == own or (os.path.isdir(served) and os.path.isdir(own) and os.path.samefile(served, own))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
