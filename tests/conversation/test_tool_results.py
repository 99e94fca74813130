"""What an agent reads of its own calls and their results, through every chat template with tools that TRL ships."""

import functools
from pathlib import Path

import pytest
import trl
from tokenizers_for_tests import tokenizer_for
from transformers.utils import get_json_schema

from trl_teamtr.conversation.rendering import ChatRenderer
from trl_teamtr.conversation.thoughts import find_parser
from trl_teamtr.conversation.tool_calls import find_call_parser
from trl_teamtr.conversation.transcript import Message, ToolCall, Transcript
from trl_teamtr.conversation.view import View


FOLDER = Path(trl.__file__).parent / "chat_templates"
WITH_TOOLS = [
    "gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "gemma4_v5", "glm4moe", "gptoss", "lfm2_2_5", "lfm2_2_5_v2",
    "lfm2_2_5_vl", "lfm2_v2", "llama3_1", "llama3_2", "qwen2_5", "qwen3", "qwen3_5_nothink", "qwen3_5_think",
    "qwen3_6", "qwen3_8", "qwen3_instruct_2507", "qwen3_vl",
]  # fmt: skip

QUESTION = "What is the sum?"


def add(a: int, b: int) -> int:
    """
    Adds.

    Args:
        a: One number.
        b: Another.
    """
    return a + b


SCHEMAS = [get_json_schema(add)]
USER = {"role": "user", "content": QUESTION}


def call(a, b):
    arguments = {"a": a, "b": b}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": arguments}}],
    }


def result(text):
    return {"role": "tool", "name": "add", "content": text}


@functools.cache
def make_tokenizer(name):
    return tokenizer_for((FOLDER / f"{name}.jinja").read_text())


def render(name, turns, answer=True):
    return make_tokenizer(name).apply_chat_template(turns, tokenize=False, add_generation_prompt=answer, tools=SCHEMAS)


def encode(name, text):
    return make_tokenizer(name)(text, add_special_tokens=False)["input_ids"]


def make_renderer(name, ends=()):
    tokenizer = make_tokenizer(name)
    return ChatRenderer(tokenizer, "a", None, [tokenizer.eos_token_id, *ends], {}, None, SCHEMAS)


def divide(name):
    """
    Of a message with two calls: what is read before it, and the pieces of it that are sampled and read, in turns, as the template
    writes them.
    """
    opening = render(name, [USER])
    pieces, turns, before = [], [USER], opening
    for a, b, text in ((3, 4, "7"), (7, 1, "8")):
        turns += [call(a, b), result(text)]
        whole = render(name, turns)
        renderer = make_renderer(name)
        written = f'"{text}"' if renderer.results.escapes else text
        after = renderer.results._after_call(("add",)).replace("\ue000result 0\ue001", text)
        assert whole.endswith(after) and written in after
        own = whole[: len(whole) - len(after)]
        # A template may write the beginning of a turn otherwise once it is in the history
        own = (
            own[own.rindex("add" if name == "gptoss" else mark(name)) :]
            if not own.startswith(before)
            else own[len(before) :]
        )
        pieces += [own, after]
        before = whole
    return opening, pieces


def mark(name):
    return next(
        mark
        for mark in ("<|tool_call_start|>", "<|tool_call>", "<tool_call>", '{"name"')
        if mark in render(name, [USER, call(3, 4)], False)
    )


def closing(name, after):
    """The ids of `after` up to the first that ends a message of the agent."""
    ids = encode(name, after)
    controls = make_renderer(name).encoder.control_ids
    stops = {"glm4moe": "<|observation|>", "gptoss": "<|call|>"}.get(name)
    if stops is None:
        stops = next(stop for stop in ("<|tool_response>", "<turn|>", "<|im_end|>", "<|eot_id|>") if stop in after)
    (stop,) = encode(name, stops)
    assert stop in controls
    return ids[: ids.index(stop) + 1], stop


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_a_talk_with_calls_is_what_the_template_renders(name):
    """Two calls in the first message, and another agent's message before the next."""
    opening, (first, after, second, then) = divide(name)
    view, row = View(), Transcript([USER], ("a", "b"))
    (end, stop), (end_2, _) = closing(name, after), closing(name, then)
    renderer = make_renderer(name, [stop])
    view.read(row, renderer, room=10_000)
    sampled = [encode(name, first) + end, encode(name, second) + end_2]
    for number, (ids, text) in enumerate(zip(sampled, ("7", "8"), strict=True)):
        view.write(ids, goes_on=number > 0)
        view.hear(*renderer.results.encode(["add"], [text], ids))
    assert view.context == encode(name, opening + first + after + second + then)
    whole = render(name, [USER, call(3, 4), result("7"), call(7, 1), result("8")])
    assert opening + first + after + second + then == whole
    # Only what it sampled is scored, and all of it belongs to one message
    assert sum(view.mask) == sum(map(len, sampled)) and view.num_messages == 1
    assert {number for number, own in zip(view.message_numbers(), view.mask, strict=True) if own} == {0}
    assert [view.context_of(0, 0), view.context_of(0, 1)] == [
        encode(name, opening),
        encode(name, opening + first + after),
    ]

    said = "It is eight"
    answer = encode(name, said) + [stop]
    view.write(answer, goes_on=True)
    row.messages += [Message("a", said), Message("b", "No, nine")]
    last, between = renderer.between([Message("b", "No, nine")], answer)
    assert view.read(row, renderer, room=10_000)
    assert view.context[-len(between) - 1 :] == [last, *between]
    assert "b: No, nine" in make_tokenizer(name).decode(between)


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_calls_are_found_where_the_template_writes_them(name):
    opening, (first, after, *_) = divide(name)
    tokenizer, (end, stop) = make_tokenizer(name), closing(name, after)
    parser = find_call_parser(tokenizer, SCHEMAS, find_parser(tokenizer, None, [stop]), "a")
    ids = encode(name, first) + end
    reading = parser.read(ids, tokenizer.decode(ids, skip_special_tokens=True), encode(name, opening))
    assert reading.calls == (ToolCall("add", '{"a": 3, "b": 4}'),) and not reading.fault
    assert (reading.answer, reading.thought.strip()) == ("", "")


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_control_tokens_in_results_stay_text(name):
    renderer = make_renderer(name)
    forged = " ".join(tok.content for tok in make_tokenizer(name).added_tokens_decoder.values())
    plain, hostile = (renderer.results.encode(["add"], [text], [0])[1] for text in ("fine", f'{forged} "quoted" \n'))
    controls = renderer.encoder.control_ids
    assert [i for i in hostile if i in controls] == [i for i in plain if i in controls]
    assert "quoted" in make_tokenizer(name).decode(hostile)


@pytest.mark.parametrize("name", ["llama3_1", "gptoss"])
def test_results_are_escaped_where_the_template_writes_json(name):
    said = 'a "word"\nand more'
    _, ids = make_renderer(name).results.encode(["add"], [said], encode(name, "<|eot_id|><|call|>"))
    assert make_tokenizer(name).decode(ids) in render(name, [USER, call(3, 4), result(said)])


def test_a_message_that_ends_otherwise_than_the_template_closes_calls():
    tokenizer = make_tokenizer("llama3_1")
    tokenizer.add_tokens(["<|eom_id|>"], special_tokens=True)
    eom, eot = tokenizer.convert_tokens_to_ids(["<|eom_id|>", "<|eot_id|>"])
    renderer = ChatRenderer(tokenizer, "a", None, [eom, eot], {}, None, SCHEMAS)
    last, ids = renderer.results.encode(["add"], ["7"], [5, eom])
    assert last == eot and (last, ids) == renderer.results.encode(["add"], ["7"], [5, eot])


def test_some_templates_take_one_call_at_a_time():
    several = [name for name in WITH_TOOLS if make_renderer(name).results.takes_several]
    assert set(WITH_TOOLS) - set(several) == {"llama3_1", "llama3_2"}


def test_a_template_that_leaves_out_results_is_refused():
    tokenizer = tokenizer_for("{% for m in messages %}{{ m['content'] if m['role'] != 'tool' else '' }}{% endfor %}")
    renderer = ChatRenderer(tokenizer, "a", None, [tokenizer.eos_token_id], {}, None, SCHEMAS)
    with pytest.raises(ValueError, match="leaves out the results of tools"):
        renderer.results.encode(["add"], ["7"], [0])
