"""What a team relies on in the answers of a vLLM server: one list, for the fake one and for real ones."""

import requests

from trl_teamtr.agents.settings import SamplingSettings
from trl_teamtr.policy.backend import Request
from trl_teamtr.policy.generation.client import ServerClient
from trl_teamtr.policy.generation.completions import make_payload


def ask(model: str, context: list[int], max_tokens: int, seed: int = 0, ends: tuple[int, ...] = (), **fields) -> dict:
    request = Request("x", context, max_tokens)
    return make_payload(model, request, SamplingSettings(**fields), list(ends), seed)


def check_contract(url: str, model: str):
    """
    Args:
        url: A server that takes adapters, up, with nothing loaded.
        model: The model that it was started with, of four tokens, which reads 128.
    """
    client = ServerClient(url, 60.0)

    def post(path: str, body: dict) -> requests.Response:
        return requests.post(f"{url}{path}", json=body, timeout=60)

    assert requests.get(f"{url}/version", timeout=60).json()["version"]
    assert client.is_healthy() and client.takes_adapters() and client.served_name() == model
    check_info(client, model)
    # Adapters that are not there
    gone = post("/v1/unload_lora_adapter", {"lora_name": "nobody"})
    missing = post("/v1/load_lora_adapter", {"lora_name": "n", "lora_path": "/nowhere", "load_inplace": False})
    unknown = post("/v1/completions", ask("nobody", [0, 2], 2))
    assert (gone.status_code, missing.status_code, unknown.status_code) == (404, 404, 404)
    assert "nobody" in unknown.text and "/nowhere" in missing.text
    # What leaves no room, what is no token, and a method that is not there
    assert [post("/v1/completions", ask(model, ids, 2)).status_code for ids in ([2] * 128, [2] * 129, [4])] == [
        400
    ] * 3
    wrong = post("/collective_rpc", {"method": "no_such_method"})
    assert wrong.status_code == 500 and "no_such_method" in wrong.text
    assert post("/collective_rpc", {"method": "list_loras"}).json() == {"results": [[]]}
    check_completions(client, model)
    assert client.is_healthy()


def check_info(client: ServerClient, model: str):
    """`/server_info` tells what `check_server` reads, and an instance that stays the same."""
    info = client.get_server_info()
    told = info["model_config"]
    assert told["model"] == model and told["max_model_len"] == 128 and told["dtype"] == "torch.float32"
    assert told["logprobs_mode"] == "processed_logprobs" and told["generation_config"] == "vllm"
    assert told["quantization"] is None
    assert info["lora_config"]["max_lora_rank"] >= 1 and info["lora_config"]["max_loras"] >= 1
    assert info["parallel_config"]["data_parallel_size"] == 1
    assert info["device_config"]["device"] == "cpu" and info["scheduler_config"]["enable_chunked_prefill"] is False
    assert client.instance() and client.instance() == client.instance()


def check_completions(client: ServerClient, model: str):
    """Ids with their log-probabilities, up to and including a stop token; the model's own end is one only if it is listed."""
    ends = set()
    for seed in range(40):
        (choice,) = client.complete(ask(model, [0, 2], 2, seed, ends=(1,)))["choices"]
        ids, logps = choice["token_ids"], choice["logprobs"]["token_logprobs"]
        assert 1 <= len(ids) == len(logps) <= 2 and all(logp <= 0 for logp in logps)
        assert 1 not in ids[:-1] and (ids[-1] == 1 or len(ids) == 2)
        ends.add((len(ids), choice["finish_reason"]))
    assert ends == {(1, "stop"), (2, "stop"), (2, "length")}
    unended = [client.complete(ask(model, [0, 2], 6, seed))["choices"][0]["token_ids"] for seed in range(40)]
    assert {len(ids) for ids in unended} == {6} and any(1 in ids for ids in unended)
    again = client.complete(ask(model, [0, 2], 6, 3))["choices"][0]["token_ids"]
    assert again == unended[3]
    # A context that leaves no room gets fewer tokens, and no error
    (short,) = client.complete(ask(model, [2] * 126, 6))["choices"]
    assert len(short["token_ids"]) == 2
