"""Messages with calls as they are read: by their author, and by the others."""

import pytest
from test_tool_results import SCHEMAS, encode, make_tokenizer
from tokenizers_for_tests import chatml_tokenizer, tokenizer_for
from trl.chat_template_utils import parse_response

from trl_teamtr.conversation import thoughts, tool_calls
from trl_teamtr.conversation.streaming import IncrementalText
from trl_teamtr.conversation.thoughts import Reading, find_parser
from trl_teamtr.conversation.tool_calls import UNREADABLE, find_call_parser
from trl_teamtr.conversation.transcript import ToolCall


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 3, "b": 4}}\n</tool_call>'
FOUND = ToolCall("add", '{"a": 3, "b": 4}')
OTHER = CALL.replace("add", "sum")
THOUGHT = "<think>\nhm\n</think>\n\n"
MESSAGES = [
    (f"{CALL}<|im_end|>", Reading("", "", (FOUND,))),
    (f"I add\n{CALL}<|im_end|>", Reading("I add", "", (FOUND,))),
    (f"{THOUGHT}I add\n{CALL}\n{OTHER}<|im_end|>", Reading("I add", "hm", (FOUND, ToolCall("sum", FOUND.arguments)))),
    (f"{THOUGHT}Seven<|im_end|>", Reading("Seven", "hm")),
    ("Seven<|im_end|>", Reading("Seven")),
    # A call that it only thinks of is none
    (f"<think>\n{CALL}\n</think>\n\nSeven<|im_end|>", Reading("Seven", CALL)),
]
MALFORMED = [
    'I add\n<tool_call>\n{"name": "add", "arguments": {"a": 3\n</tool_call><|im_end|>',
    "I add\n<tool_call>\nadd 3 and 4\n</tool_call><|im_end|>",
    "I add\n<tool_call><|im_end|>",
    'I add\n<tool_call>\n{"arguments": {}}\n</tool_call><|im_end|>',
]


def read(written, shared=False, name="qwen3"):
    tokenizer = make_tokenizer(name)
    thoughts = None if shared else find_parser(tokenizer, None, [tokenizer.eos_token_id])
    parser, ids = find_call_parser(tokenizer, SCHEMAS, thoughts, "a"), encode(name, written)
    context = encode(name, "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n")
    return parser.read(ids, tokenizer.decode(ids, skip_special_tokens=True), context), parser, ids, context


@pytest.mark.parametrize("written, reading", MESSAGES)
def test_calls_thoughts_and_answers_are_told_apart(written, reading):
    found = read(written)[0]
    assert (found.answer, found.thought.strip(), found.calls, found.fault) == (
        reading.answer,
        reading.thought,
        reading.calls,
        "",
    )


@pytest.mark.parametrize("thought", ["", THOUGHT])
@pytest.mark.parametrize("written", MALFORMED)
def test_a_malformed_call_is_a_fault_and_nobody_else_reads_it(written, thought):
    found = read(thought + written)[0]
    assert found.answer == "I add" and found.calls == (ToolCall(UNREADABLE),) and "could not be read" in found.fault
    assert found.thought == ("hm" if thought else "")


def test_arguments_that_are_no_object_are_a_fault():
    found = read('<tool_call>\n{"name": "add", "arguments": [3, 4]}\n</tool_call><|im_end|>')[0]
    assert found.calls[0].name == "add" and "the arguments of add are not a JSON object" in found.fault


def test_shared_thoughts_are_part_of_what_is_said():
    assert read(f"{THOUGHT}I add\n{CALL}<|im_end|>", shared=True)[0] == Reading("hm\nI add", "", (FOUND,))
    assert "hm" in read(f"{THOUGHT}Seven<|im_end|>", shared=True)[0].answer


def test_nothing_of_a_call_is_heard_while_it_is_generated():
    _, parser, ids, context = read(f"I add\n{CALL}<|im_end|>")
    text = IncrementalText(make_tokenizer("qwen3"), lambda own, said: parser.read(own, said, context).answer)
    assert "".join(text.add(token) for token in ids).strip() == "I add"


@pytest.mark.parametrize(
    "written", [f"{THOUGHT}Seven<|im_end|>", "Seven<|im_end|>", f"{THOUGHT}I add\n{CALL}<|im_end|>"]
)
def test_a_message_is_parsed_once(monkeypatch, written):
    _, parser, ids, context = read(written)
    parsed = []

    def count(*arguments, **options):
        parsed.append(arguments)
        return parse_response(*arguments, **options)

    for module in (thoughts, tool_calls):
        monkeypatch.setattr(module, "parse_response", count)
    parser.read(ids, make_tokenizer("qwen3").decode(ids, skip_special_tokens=True), context)
    assert len(parsed) == 1


def test_ordinary_text_is_no_call_where_calls_look_like_code():
    assert read("First f(x), then g(x)<|im_end|>", name="lfm2_2_5")[0].calls == ()


TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% for call in m['tool_calls'] or [] %}"
    "{{ '<call>' + call['function']['name'] + (call['function']['arguments'] | tojson) }}{% endfor %}<eos>{% endfor %}"
)
FIELDS = {"content": {"close_pattern": "<eos>", "content": "text"}}


@pytest.mark.parametrize(
    "tokenizer, message",
    [
        (chatml_tokenizer(), "Agent 'a' has tools, but its chat template does not write calls and results"),
        (tokenizer_for(TEMPLATE), "neither its tokenizer nor TRL knows how its chat template writes calls"),
    ],
)
def test_an_agent_whose_template_has_no_tools(tokenizer, message):
    with pytest.raises(ValueError, match=message):
        find_call_parser(tokenizer, SCHEMAS, None, "a")


def test_a_response_template_that_does_not_fit_the_chat_template():
    tokenizer = tokenizer_for(TEMPLATE)
    tokenizer.response_template = {"start_anchor": "assistant: ", "fields": FIELDS}
    with pytest.raises(ValueError, match="its response template does not find the call '.*<call>add"):
        find_call_parser(tokenizer, SCHEMAS, None, "a")
