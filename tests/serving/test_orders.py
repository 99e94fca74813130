"""Every field of OpenAI's is honoured, or refused by its name."""

import pytest

from trl_teamtr.rollouts.talks import Wishes
from trl_teamtr.serving.errors import APIError
from trl_teamtr.serving.orders import Order, read_order


BODY = {"model": "team", "messages": [{"role": "user", "content": "au"}]}


def read(**fields):
    return read_order(BODY | fields, 4)


def test_a_plain_request_has_a_random_seed_and_nothing_else():
    order = read(user="me", metadata={"a": "b"}, temperature=None, top_p=1.0, stop=None, tools=[], store=False)
    (wishes,) = order.wishes()
    assert wishes == Wishes(wishes.seed) and wishes.seed is not None and not order.stream
    assert read().wishes() != read().wishes()


def test_what_is_honoured():
    order = read(n=3, seed=7, temperature=0, max_tokens=9, max_completion_tokens=5)
    first, second, third = order.wishes()
    assert first == Wishes(7, 0.0, 5) and len({first.seed, second.seed, third.seed}) == 3
    assert read(n=2, seed=7).wishes() == [Wishes(7), Wishes(second.seed)]


def test_turns_are_texts():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "u"}]
    messages = [{"role": "developer", "content": "s"}, {"role": "user", "content": parts, "name": "me"}]
    assert read(messages=messages).turns == [{"role": "system", "content": "s"}, {"role": "user", "content": "au"}]


@pytest.mark.parametrize(
    "fields, param, code, message",
    [
        ({"stop": ["\n"]}, "stop", "unsupported_parameter", "`stop` is not supported: a message ends with"),
        ({"tools": [{}]}, "tools", "unsupported_parameter", "agents have no tools yet"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "unsupported_parameter", "thoughts of agents"),
        ({"top_p": 0.5}, "top_p", "unsupported_parameter", "sample with the settings"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter", "log-probabilities"),
        ({"presence_penalty": True}, "presence_penalty", "unsupported_parameter", "sample with the settings"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter", "with text"),
        ({"top_k": 3}, "top_k", "unknown_parameter", "Unrecognized request argument: `top_k`"),
        ({"n": 0}, "n", None, "greater than or equal to 1"),
        ({"n": 5}, "n", None, "at most 4 answers"),
        ({"n": 1.5}, "n", None, "valid integer"),
        ({"temperature": 2.5}, "temperature", None, "less than or equal to 2"),
        ({"temperature": float("nan")}, "temperature", None, "`temperature`"),
        ({"max_tokens": 0}, "max_tokens", None, "greater than or equal to 1"),
        ({"seed": "1"}, "seed", None, "valid integer. Got '1'"),
        ({"model": None}, "model", None, "`model`: Field required"),
        ({"messages": []}, "messages", None, "at least 1 item"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role", None, "is 'tool', but must be one of"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0", None, "read text only"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0", None, "must be text"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "u"}]},
            "messages",
            None,
            "is the assistant's, but must be the user's",
        ),
        ({"stream_options": {"include_usage": True}}, "stream_options", None, "for `stream=true` only"),
        ({"teamtr": {"agents": 1}}, "teamtr.agents", None, "Extra inputs"),
        ({"teamtr": {"agent_prompts": {"x": 3}}}, "teamtr.agent_prompts.x", None, "valid string"),
    ],
)
def test_what_is_refused(fields, param, code, message):
    with pytest.raises(APIError, match=message) as caught:
        read(**fields)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
    assert caught.value.body["error"]["type"] == "invalid_request_error"


def test_every_field_of_openai_is_known():
    """One that its client comes to send is to be honoured or refused by name, and not called unknown."""
    from openai.types.chat.completion_create_params import CompletionCreateParamsBase

    from trl_teamtr.serving import orders

    known = set(Order.model_fields) | set(orders._NOTHING) | orders._IGNORED
    unknown = {"verbosity", "prompt_cache_retention", "prompt_cache_options", "moderation"}
    assert set(CompletionCreateParamsBase.__annotations__) - known <= unknown
