"""What `teamtr` adds can be read by a client, and nothing of OpenAI's format is missing."""

import dataclasses
import json

from openai.types.chat import ChatCompletion, ChatCompletionChunk
from served import make_chat_team

from trl_teamtr.conversation.transcript import ToolCall, ToolUse
from trl_teamtr.rollouts.talks import Talk, Wishes
from trl_teamtr.serving.answers import (
    Heading,
    StreamedChoice,
    as_event,
    finish_reason,
    usage_chunk,
    whole_answer,
)


def hold(listen=None, **wishes):
    talk = make_chat_team().begin("au", wishes=Wishes(**({"seed": 1} | wishes)), listen=listen)
    while not talk.ended:
        Talk.go_on([talk])
    return talk


def test_objects_are_those_of_openai():
    events = []
    talk, heading = hold(events.append), Heading("team", 1)
    answer = ChatCompletion.model_validate(whole_answer(heading, [talk, talk]), strict=True)
    assert len(answer.choices) == 2 and answer.usage.prompt_tokens == 3
    choice = StreamedChoice(heading, 0, 1)
    chunks = [choice.begin(), *map(choice.hear, events), *choice.end(talk), usage_chunk(heading, [talk])]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    assert len({chunk["id"] for chunk in chunks} | {answer.id}) == 1


def test_a_message_that_was_cut_and_a_context_that_is_full_end_for_length():
    assert {finish_reason(hold(seed=seed, max_tokens=1)) for seed in range(12)} == {"stop", "length"}
    talk = next(each for each in (hold(seed=seed) for seed in range(20)) if finish_reason(each) == "stop")
    talk.full = "y"
    assert finish_reason(talk) == "length"


def test_calls_of_tools_are_in_the_transcript():
    talk = hold()
    use = ToolUse(1, (ToolCall("count", '{"to": 30}'),), ("10",), (False,))
    talk.transcript.messages[0] = dataclasses.replace(talk.transcript.messages[0], tool_uses=(use,))
    answer = whole_answer(Heading("team", 1), [talk])
    first, *others = answer["choices"][0]["teamtr"]["transcript"]
    assert first["tools"] == ['count({"to": 30}) -> 10'] and all("tools" not in message for message in others)


def test_an_event_is_one_line():
    assert as_event({"a": "b\n\nü"}) == 'data: {"a": "b\\n\\nü"}\n\n'
    assert json.loads(as_event({"a": "\u2028"})[6:]) == {"a": "\u2028"} and as_event("[DONE]") == "data: [DONE]\n\n"
