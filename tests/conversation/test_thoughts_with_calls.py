"""
A talk of two rounds with thoughts and two calls, through chat templates with tools that TRL ships: what its author reads is what the
template renders, token by token, and the others read the answer.

One exception: within the author's own message thoughts are as sampled also where the template would leave them out once the answer is
there; with `keep_thoughts=False` the second round has what the template renders.
"""

import pytest
from test_tool_results import SCHEMAS, USER, call, closing, encode, make_renderer, make_tokenizer, render, result

from trl_teamtr.conversation.rendering import ChatRenderer
from trl_teamtr.conversation.thoughts import find_parser
from trl_teamtr.conversation.tool_calls import find_call_parser
from trl_teamtr.conversation.transcript import Message, ToolCall, ToolUse, Transcript
from trl_teamtr.conversation.view import View


# Templates with thoughts and tools, and those of two families without thoughts
THINKING = ["qwen3", "qwen3_5_think", "qwen3_6", "qwen3_8", "glm4moe", "gptoss", "gemma4", "gemma4_v5", "lfm2_2_5"]
NAMES = [*THINKING, "qwen2_5", "llama3_1"]
THOUGHTS = ["First the two", "Then one more", "So that is it"]
ANSWER, REPLY = "It is eight", "No, nine"


def thinking(name, turn, thought):
    """`turn` with a thought, under the names that templates have for it."""
    return {**turn, "reasoning_content": thought, "thinking": thought} if name in THINKING else turn


def turns_of(name):
    """The turns of a message with two calls."""
    return [
        thinking(name, call(3, 4), THOUGHTS[0]),
        result("7"),
        thinking(name, call(7, 1), THOUGHTS[1]),
        result("8"),
        thinking(name, {"role": "assistant", "content": ANSWER}, THOUGHTS[2]),
    ]


def cut(name, whole, before, text):
    """What of the rendering `whole` was sampled after `before`, and what the template wrote after it."""
    after = make_renderer(name).results._after_call(("add",)).replace("\ue000result 0\ue001", text)
    assert whole.startswith(before) and whole.endswith(after)
    return whole[len(before) : len(whole) - len(after)], after


def play(name, forgets=False):
    """The view of the author up to its answer, its segments, what each was sampled after, and the rendering of the template."""
    view, row, steps = View(), Transcript([USER], ("a", "b")), turns_of(name)
    turns, rendered, segments, contexts = [USER], render(name, [USER]), [], []
    renderer = None
    for number, text in enumerate(("7", "8")):
        turns = [*turns, *steps[2 * number : 2 * number + 2]]
        before, rendered = rendered, render(name, turns)
        own, after = cut(name, rendered, before, text)
        end, stop = closing(name, after)
        if renderer is None:
            tokenizer = make_tokenizer(name)
            renderer = ChatRenderer(tokenizer, "a", None, [tokenizer.eos_token_id, stop], {}, None, SCHEMAS, forgets)
            assert view.read(row, renderer, room=10_000)
        contexts.append(view.context)
        segments.append(encode(name, own) + end)
        view.write(segments[-1], goes_on=number > 0)
        view.hear(*renderer.results.encode(["add"], [text], segments[-1]))
    return view, row, renderer, segments, contexts, rendered, stop


@pytest.mark.parametrize("name", NAMES)
def test_within_its_message_an_agent_reads_what_the_template_renders(name):
    view, _, _, segments, contexts, rendered, stop = play(name)
    assert view.context == encode(name, rendered)
    assert all((thought in rendered) == (name in THINKING) for thought in THOUGHTS[:2])
    assert sum(view.mask) == sum(map(len, segments)) and view.num_messages == 1
    for number, (ids, context) in enumerate(zip(segments, contexts, strict=True)):
        reading = parse(name, ids, context, stop)
        assert reading.calls == (ToolCall("add", ['{"a": 3, "b": 4}', '{"a": 7, "b": 1}'][number]),)
        assert (reading.answer, reading.thought.strip()) == ("", THOUGHTS[number] if name in THINKING else "")


def parse(name, ids, context, stop):
    tokenizer = make_tokenizer(name)
    parser = find_call_parser(tokenizer, SCHEMAS, find_parser(tokenizer, None, [stop]), "a")
    return parser.read(ids, tokenizer.decode(ids, skip_special_tokens=True), context)


def answer_of(name, context):
    """The ids of the last segment, which ends with the answer, without its end."""
    if name not in THINKING:
        return encode(name, ANSWER)
    if name == "gptoss":
        thought = f"<|channel|>analysis<|message|>{THOUGHTS[2]}<|end|><|start|>assistant"
        return encode(name, f"{thought}<|channel|>final<|message|>{ANSWER}")
    if name.startswith("gemma4"):
        return encode(name, f"<|channel>thought\n{THOUGHTS[2]}\n<channel|>{ANSWER}")
    opened = make_tokenizer(name).decode(context).rstrip().endswith("<think>")
    return encode(name, f"{'' if opened else '<think>'}{THOUGHTS[2]}</think>\n\n{ANSWER}")


def ending(name):
    """
    The token that ends an answer, what the template writes after the answer when somebody has replied, and the whole rendering.
    """
    whole = render(name, [*[USER, *turns_of(name)], {"role": "user", "content": f"b: {REPLY}"}])
    after = whole.rpartition(ANSWER)[2]
    ids = encode(name, after)
    # gpt-oss ends an answer with another token than the one that its history has
    return encode(name, "<|return|>")[0] if name == "gptoss" else ids[0], ids, whole


@pytest.mark.parametrize("name", NAMES)
def test_in_the_second_round_an_agent_reads_its_own_message_and_the_reply(name):
    closing_token, after, _ = ending(name)
    view, row, renderer, segments, contexts, rendered, stop = play(name)
    renderer.eos_token_ids.add(closing_token)
    before = list(view.context)
    ids = [*answer_of(name, before), closing_token]
    reading = parse(name, ids, before, closing_token)
    assert (reading.answer, reading.calls) == (ANSWER, ())
    assert reading.thought.strip() == (THOUGHTS[2] if name in THINKING else "")
    view.write(ids, goes_on=True)
    row.messages += [said(reading, segments, ids), Message("b", REPLY)]
    assert view.read(row, renderer, room=10_000)
    assert view.context == [*before, *ids[:-1], *after]
    # What the other reads of it is the answer
    heard = ChatRenderer(make_tokenizer(name), "b", None, [closing_token], {}).opening(row, row.messages[:1])
    shown = make_tokenizer(name).decode(heard)
    assert f"a: {ANSWER}" in shown
    assert not any(text in shown for text in (*THOUGHTS, "add", '"7"', "tool_call", "tool_response"))


def said(reading, segments, ids):
    """The whole message."""
    edges = [len(segments[0]), len(segments[0]) + len(segments[1])]
    uses = [
        ToolUse(edge, (ToolCall("add", arguments),), (text,), (False,))
        for edge, arguments, text in zip(edges, ('{"a": 3, "b": 4}', '{"a": 7, "b": 1}'), ("7", "8"), strict=True)
    ]
    return Message(
        "a", reading.answer, (*segments[0], *segments[1], *ids), thought=reading.thought, tool_uses=tuple(uses)
    )


@pytest.mark.parametrize("name", NAMES)
def test_without_its_thoughts_it_reads_what_the_template_renders(name):
    """Of the turns with thoughts, which the templates leave out themselves; but Qwen3.8's."""
    closing_token, _, whole = ending(name)
    view, row, renderer, segments, _, _, _ = play(name, forgets=True)
    context = list(view.context)
    ids = [*answer_of(name, context), closing_token]
    view.write(ids, goes_on=True)
    row.messages += [said(parse(name, ids, context, closing_token), segments, ids), Message("b", REPLY)]
    assert view.read(row, renderer, room=10_000)
    assert view.context_of(0, 2) == context and view.completion_ids == []
    if name == "qwen3_8":
        assert all(thought in whole for thought in THOUGHTS)
        whole = render(name, [USER, call(3, 4), result("7"), call(7, 1), result("8"), {"role": "assistant", "content": ANSWER}, {"role": "user", "content": f"b: {REPLY}"}])  # fmt: skip
    assert not any(thought in whole for thought in THOUGHTS)
    assert view.context == encode(name, whole)
