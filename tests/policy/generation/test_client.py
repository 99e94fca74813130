"""The calls to a server, and which of their failures a server that is up again would not repeat."""

import pytest
import requests
from fake_vllm import serving
from vllm_teams import save_base

from trl_teamtr.agents.settings import SamplingSettings
from trl_teamtr.policy.backend import Request
from trl_teamtr.policy.generation.client import ServerClient
from trl_teamtr.policy.generation.completions import make_payload


@pytest.fixture
def served(tmp_path):
    with serving(save_base(tmp_path / "base")) as server:
        yield server, ServerClient(server.url, 5.0)


def ask(model):
    return make_payload(model, Request("x", [0, 2], 3), SamplingSettings(), [1], 0)


def test_a_completion_comes_with_its_ids(served):
    server, client = served
    (choice,) = client.complete(ask(client.served_name()))["choices"]
    assert 1 <= len(choice["token_ids"]) <= 3 and client.served_name() == server.model_path
    assert client.is_healthy() and client.takes_adapters()
    server.lora_updating = False
    assert not client.takes_adapters()


def test_weights_are_reloaded_before_caches_are_forgotten(served, tmp_path):
    server, client = served
    other = save_base(tmp_path / "other", seed=5)
    client.reload_weights(other)
    assert [path for path, _ in server.posts] == ["/collective_rpc", "/reset_prefix_cache"]
    assert server.sent("/collective_rpc") == [{"method": "reload_weights", "kwargs": {"weights_path": other}}]


def test_failures_are_told_apart_by_what_would_mend_them(served):
    server, client = served
    assert client.attempt(lambda: client.complete(ask(server.model_path)), "a message") is None
    gone = client.attempt(lambda: client.complete(ask("run-x-v1")), "a message")
    assert gone.lost and gone.url == server.url and "a message" in gone.message and "does not exist" in gone.message
    wrong = client.attempt(lambda: client._post("/collective_rpc", {"method": "other"}), "weights")
    assert not wrong.lost and "500: " in wrong.message and "no attribute 'other'" in wrong.message

    def refuse():
        raise ValueError("too long")

    refused = client.attempt(refuse, "a message")
    assert not refused.lost and refused.message == "a message: ValueError: too long"
    server.restarts = False
    server.die()
    assert client.attempt(refuse, "a message").lost and not client.is_healthy()
    assert client.attempt(lambda: client.complete(ask(server.model_path)), "a message").lost


def test_an_error_has_what_the_server_said(served):
    _, client = served
    with pytest.raises(requests.HTTPError, match="404: .*The model `run-x-v1` does not exist"):
        client.complete(ask("run-x-v1"))
