"""Messages as requests of chat completions, and back."""

import random
import sys

import pytest
from accelerate import Accelerator
from fake_endpoint import answering, remote_agent

from trl_teamtr import Agent
from trl_teamtr.agents.settings import SamplingSettings
from trl_teamtr.conversation.turn_rendering import END, encode_text, encode_turns
from trl_teamtr.policy.backend import Request
from trl_teamtr.policy.drawing import Draw
from trl_teamtr.policy.remote import RemoteMemberError, chat_backend
from trl_teamtr.policy.remote.chat_backend import RemoteBackend
from trl_teamtr.policy.remote.endpoint import EndpointClient


TURNS = [{"role": "user", "content": "a"}]
CONTEXT = encode_turns([*TURNS, {"role": "assistant", "content": ""}])


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(EndpointClient, "backoff", 0.0)


def backend_of(agent, **sampling):
    return RemoteBackend(agent, SamplingSettings(**sampling).with_own(agent), Accelerator())


def body(draw=None, max_tokens=7, own=None, **sampling):
    agent = Agent("y", endpoint="http://host/v1", model="m", generation_kwargs=own)
    return backend_of(agent, **sampling).make_body(Request("y", CONTEXT, max_tokens, draw), 5)


def test_a_request_has_the_settings_of_the_team():
    plain = {"model": "m", "messages": TURNS, "temperature": 1.0, "top_p": 1.0, "max_tokens": 7, "seed": 5}
    assert body() == plain
    assert body(temperature=0.5, top_k=3, min_p=0.1, repetition_penalty=1.1) == plain | {
        "temperature": 0.5,
        "top_k": 3,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
    }
    assert body(generation_kwargs={"eos_token_id": 3}) == plain  # of transformers, for models here


def test_an_agent_has_its_own_and_leaves_out_what_its_endpoint_does_not_know():
    own = {"temperature": 0.2, "top_p": None, "seed": None, "max_tokens": None, "max_completion_tokens": 9}
    assert body(own=own | {"reasoning_effort": "low", "max_completion_length": 3}) == {
        "model": "m",
        "messages": TURNS,
        "temperature": 0.2,
        "max_completion_tokens": 9,
        "reasoning_effort": "low",
    }


def test_a_conversation_has_wishes_of_its_own():
    drawn = body(Draw(seed=2**40 + 3, temperature=0.0))
    assert drawn["seed"] == 3 and drawn["temperature"] == 0.0
    assert "max_tokens" not in body(max_tokens=sys.maxsize - 10)


def test_seeds_come_from_the_random_state_that_a_checkpoint_keeps():
    with answering() as server:
        backend, requests = backend_of(remote_agent(server)), [Request("y", CONTEXT, 2)] * 3
        found = []
        for _ in range(2):
            random.seed(4)
            found.append(backend.generate(requests))
        assert found[0] == found[1]
        seeds = [each["seed"] for each in server.bodies]
        assert len(set(seeds)) == 3 and sorted(seeds[:3]) == sorted(seeds[3:])


def test_nothing_is_asked_for_nothing():
    with answering() as server:
        assert backend_of(remote_agent(server)).generate([]) == [] and not server.bodies


def answer(message, reason="stop", **fields):
    return {"choices": [{"message": message, "finish_reason": reason}], **fields}


@pytest.mark.parametrize(
    "given, text, thought",
    [
        (answer({"content": "é"}), "é", ""),
        (answer({"content": "a", "reasoning_content": "t"}), "a", "t"),
        (answer({"content": "a", "reasoning": "t"}), "a", "t"),
        (answer({"content": None, "refusal": "No."}), "No.", ""),
        (answer({"content": None, "reasoning_content": "t"}, "length"), "", "t"),
        (answer({"content": [{"type": "thinking"}, {"type": "text", "text": "a"}]}), "a", ""),
        (answer({"content": "a\ud800"}), "a?", ""),
    ],
)
def test_answers_are_read(given, text, thought):
    found = backend_of(Agent("y", endpoint="http://host/v1", model="m")).read_answer(given)
    assert found.ids == [*encode_text(text), END] and found.thought == thought and found.logps is None
    assert found.cut == (given["choices"][0]["finish_reason"] == "length") and found.tokens is None


def test_tokens_are_those_that_the_endpoint_has_counted():
    backend = backend_of(Agent("y", endpoint="http://host/v1", model="m"))
    assert backend.read_answer(answer({"content": "long"}, usage={"completion_tokens": 2})).tokens == 2
    assert backend.read_answer(answer({"content": "long"}, usage=None)).tokens is None


NOTHING = [{}, {"choices": []}, {"choices": [{}]}, {"choices": None}, answer("a"), answer({"content": 3})]
NOTHING += [
    answer({"content": ["a"]}),
    answer({"content": [{"type": "text"}]}),
    answer({"content": "a", "reasoning": 3}),
]


@pytest.mark.parametrize("given", NOTHING)
def test_what_is_no_chat_completion_is_told(given):
    with pytest.raises(RemoteMemberError, match="what is no chat completion"):
        backend_of(Agent("y", endpoint="http://host/v1", model="m")).read_answer(given)


def test_after_a_failure_nothing_more_is_asked_for():
    with answering(failures=[(400, {})] * 100) as server:
        backend = backend_of(remote_agent(server, endpoint_concurrency=1))
        with pytest.raises(RemoteMemberError, match="status 400"):
            backend.generate([Request("y", CONTEXT, 2)] * 50)
        assert len(server.bodies) == 1


def test_what_fails_on_another_process_is_raised_here_too(monkeypatch):
    told = []

    def union(accelerator, items):
        told.append(items)
        return items | {"It failed there."}

    monkeypatch.setattr(chat_backend, "union", union)
    with answering() as server:
        with pytest.raises(RemoteMemberError, match="It failed there."):
            backend_of(remote_agent(server)).generate([Request("y", CONTEXT, 2)])
        with pytest.raises(RemoteMemberError, match="It failed there."):
            backend_of(remote_agent(server)).generate([])  # a process without a row takes part
    assert told == [set(), set()]
