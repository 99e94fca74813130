"""Thoughts and answers of messages, in the forms of the templates that TRL knows."""

from pathlib import Path

import pytest
import trl
from tokenizers_for_tests import chatml_tokenizer, tokenizer_for

from trl_teamtr.conversation.streaming import IncrementalText
from trl_teamtr.conversation.thoughts import MarkParser, Reading, find_parser


TEMPLATES = Path(trl.__file__).parent / "chat_templates"
CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
FINAL = "<|channel|>final<|message|>It is seven<|return|>"
ANALYSIS = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
MESSAGES = [
    ("qwen3", "<think>\nhm\n</think>\n\nIt is seven<|im_end|>", Reading("It is seven", "hm")),
    ("qwen3", "<think>\nhm and", Reading("", "hm and")),
    ("qwen3", "It is seven \n<|im_end|>", Reading("It is seven \n")),
    # It has no tools: what looks like a call is text
    ("qwen3", f"<think>\nhm\n</think>\n\n{CALL}<|im_end|>", Reading('{"name": "f", "arguments": {}}', "hm")),
    ("qwen3", "<think>\nhm\n</think>\n\n<tool_call>\n{f}\n</tool_call><|im_end|>", Reading("{f}", "hm")),
    (
        "gptoss",
        f"{ANALYSIS}<|channel|>commentary to=f<|message|>{{<|call|>",
        Reading("", "hm"),
    ),
    ("qwen2_5", f"{CALL}<|im_end|>", Reading('\n{"name": "f", "arguments": {}}\n')),
    ("qwen2_5", "It is seven<|im_end|>", Reading("It is seven")),
    # The prompt has opened the thought
    ("qwen3_5_think", "hm\n</think>\n\nIt is seven<|im_end|>", Reading("It is seven", "hm")),
    ("qwen3_5_think", "hm and", Reading("", "hm and")),
    ("deepseek_r1_distill", "hm\n</think>\n\nIt is seven<｜end▁of▁sentence｜>", Reading("It is seven", "hm")),
    ("deepseek_r1_distill", "hm and", Reading("", "hm and")),
    ("nemotron_3_nano", "hm\n</think>\nIt is seven<|im_end|>", Reading("It is seven", "hm")),
    ("nemotron_3_nano", "hm and", Reading("", "hm and")),
    ("qwen3_5_nothink", "It is seven<|im_end|>", Reading("It is seven")),
    ("glm4moe", "\n<think>hm</think>\nIt is seven<|user|>", Reading("It is seven", "hm")),
    ("glm4moe", "\n<think>hm", Reading("", "hm")),
    ("gptoss", f"{ANALYSIS}{FINAL}", Reading("It is seven", "hm")),
    ("gptoss", "<|channel|>analysis<|message|>hm", Reading("", "hm")),
    ("gptoss", FINAL, Reading("It is seven")),
    ("lfm2_2_5", "<think>hm</think>It is seven<|im_end|>", Reading("It is seven", "hm")),
    ("gemma4", "<|channel>thought\nhm<channel|>It is seven<turn|>", Reading("It is seven", "hm")),
    ("gemma4", "<|channel>thought\nhm", Reading("", "hm")),
    ("llama3_1", "It is seven<|eot_id|>", Reading("It is seven")),
]


def setting(name, written):
    """The parser of a template, the ids and the text of a message, and a context."""
    tokenizer = tokenizer_for((TEMPLATES / f"{name}.jinja").read_text())
    ids = tokenizer(written, add_special_tokens=False)["input_ids"]
    turns = [{"role": "user", "content": "How many?"}]
    context = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)
    parser = find_parser(tokenizer, None, [tokenizer.eos_token_id])
    return parser, ids, tokenizer.decode(ids, skip_special_tokens=True), context, tokenizer


@pytest.mark.parametrize("name, written, reading", MESSAGES)
def test_answers_and_thoughts_are_those_of_the_template(name, written, reading):
    parser, ids, text, context, tokenizer = setting(name, written)
    assert parser.read(ids, text, context) == reading
    assert vars(tokenizer).get("response_template") is None  # which is the user's, and saved with the model


@pytest.mark.parametrize("name, written, reading", [case for case in MESSAGES if case[2].thought])
def test_no_part_of_a_thought_is_heard_while_it_is_generated(name, written, reading):
    parser, ids, text, context, tokenizer = setting(name, written)
    incremental = IncrementalText(tokenizer, lambda own, said: parser.read(own, said, context).answer)
    pieces = [incremental.add(token) for token in ids]
    assert "".join(pieces) + incremental.rest(reading.answer) == reading.answer
    assert sum(bool(piece) for piece in pieces) > 1 or len(reading.answer) < 12


def test_plain_text_has_thoughts_in_the_form_of_the_model_too():
    parser, ids, text, _, tokenizer = setting("qwen3", "<think>\nhm\n</think>\n\nIt is seven<|im_end|>")
    assert parser.read(ids, text, tokenizer("How many?\n\nx:")["input_ids"]) == Reading("It is seven", "hm")


def test_a_mark_divides_where_no_template_does():
    tokenizer = chatml_tokenizer()
    assert find_parser(tokenizer, None, [1]) is None
    parser = find_parser(tokenizer, "###", [1])
    assert isinstance(parser, MarkParser)
    assert parser.read([5, 1], "hm ### or ### seven ", []) == Reading("seven", "hm ### or")
    assert parser.read([5, 1], " seven", []) == Reading(" seven")  # finished, without a thought
    assert parser.read([5, 6], " seven", []) == Reading("", " seven")
    assert parser.read([], "", []) == Reading("", "")


def test_a_tokenizer_with_a_form_of_its_own_keeps_it():
    tokenizer = tokenizer_for((TEMPLATES / "qwen3.jinja").read_text())
    trl.chat_template_utils.add_response_schema(tokenizer)
    tokenizer.chat_template += " "  # which TRL does not know
    ids = tokenizer("<think>\nhm\n</think>\n\nseven<|im_end|>", add_special_tokens=False)["input_ids"]
    parser = find_parser(tokenizer, None, [tokenizer.eos_token_id])
    assert parser.read(ids, "", tokenizer("<|im_start|>assistant\n")["input_ids"]) == Reading("seven", "hm")
