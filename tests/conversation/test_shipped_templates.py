"""What agents read through every chat template that TRL ships is what the template itself renders."""

import functools
from pathlib import Path

import pytest
import trl
from tokenizers_for_tests import tokenizer_for

from trl_teamtr.conversation.rendering import ChatRenderer
from trl_teamtr.conversation.transcript import Message, Transcript
from trl_teamtr.conversation.view import View


FOLDER = Path(trl.__file__).parent / "chat_templates"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja"))

# Take text in blocks only
IN_BLOCKS = ("idefics3", "llava_next", "smolvlm")
# Write the beginning of an answer otherwise in the history than where the answer begins: without the opening of a thought
OPENS_OTHERWISE = ("deepseek_r1_distill", "deepseekv3", "nemotron_3", "qwen3_5_nothink", "qwen3_5_think", "qwen3_6")
ALTERNATE = ("cohere", "cohere2", "gemma", "gemma3")  # refuse two turns of the user in a row
SHOWS_OPENING = ("qwen3_5_nothink_training", "qwen3_5_think_training", "qwen3_6_training")

QUESTION = "How many?"
SAID = ["It is seven", "No, eight", "Then it is nine"]  # by the reader, by the other, by the reader


@functools.cache
def make_tokenizer(name):
    return tokenizer_for((FOLDER / f"{name}.jinja").read_text())


def render(name, turns):
    """The template's own rendering."""
    turns = [
        {"role": role, "content": [{"type": "text", "text": content}] if name.startswith(IN_BLOCKS) else content}
        for role, content in turns
    ]
    return make_tokenizer(name).apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def encode(name, text):
    return make_tokenizer(name)(text, add_special_tokens=False)["input_ids"]


def split(name, first):
    """
    Of a talk whose first turn is `first`: what the reader reads before its first message, that message as the template's
    history has it, and what the template writes after it, up to the reader's second.
    """
    opening = render(name, [("user", first)])
    whole = render(name, [("user", first), ("assistant", SAID[0]), ("user", f"b: {SAID[1]}")])
    before, _, after = whole.partition(SAID[0])
    written = before[len(opening) :] if whole.startswith(opening) else ""
    return opening, written + SAID[0], after


ENDINGS = ["closing", "other", "none"]


def read(name, first, ending):
    """
    The view of agent `a` after both rounds, and its first message: ended by the token that closes it in the template, by
    another one, or by the length limit.
    """
    tokenizer, (_, message, after) = make_tokenizer(name), split(name, first)
    closing = encode(name, after)[0]
    ids = encode(name, message) + {"closing": [closing], "other": [tokenizer.eos_token_id], "none": []}[ending]
    renderer = ChatRenderer(tokenizer, "a", None, [tokenizer.eos_token_id, closing], {})
    view, row = View(), Transcript([{"role": "user", "content": QUESTION}], ("a", "b"))
    if first != QUESTION:
        row.messages.append(Message("b", SAID[2]))
    for own, others in ((ids, SAID[1]), (encode(name, SAID[2]), None)):
        assert view.read(row, renderer, room=10_000)
        row.messages.append(Message("a", "", tuple(own)))
        view.write(own)
        if others:
            row.messages.append(Message("b", others))
    return view, ids


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", NAMES)
def test_view_of_two_rounds_is_what_the_template_renders(name, ending):
    for first in (
        QUESTION,
        f"{QUESTION}\n\nb: {SAID[2]}",
    ):  # of the agent that begins, and of one that has heard another
        opening, message, after = split(name, first)
        view, sampled = read(name, first, ending)
        context = view.context_of(1)
        assert context == encode(name, opening) + encode(name, message) + encode(name, after)
        whole = render(name, [("user", first), ("assistant", SAID[0]), ("user", f"b: {SAID[1]}")])
        otherwise = name.startswith(OPENS_OTHERWISE) and name not in SHOWS_OPENING
        assert (context == encode(name, whole)) == (not otherwise)
        # What it is scored on is what it sampled, whatever it reads
        start = len(view.prompt_ids)
        targets = view.prompt_ids + view.sampled_ids
        assert targets[start : start + len(sampled)] == sampled and view.mask[: len(sampled)] == [1] * len(sampled)
        assert sum(view.mask) == len(sampled) + len(encode(name, SAID[2]))


@pytest.mark.parametrize(
    "name, written, shown",
    [
        ("glm4moe", "<|user|>", "<|user|>"),
        ("glm4moe", "<|observation|>", "<|user|>"),
        ("glm4moe", "<|endoftext|>", "<|user|>"),
        ("glm4moe", "", "<|user|>"),
        ("gptoss", "<|return|>", "<|end|>"),
        ("gptoss", "<|call|>", "<|end|>"),
        ("gptoss", "<|end|>", "<|end|>"),  # cut by the length limit at the end of its analysis
        ("phi3", "<|endoftext|>", "<|end|>"),
        ("llama3_2", "<|eom_id|>", "<|eot_id|>"),
        ("cohere2", "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>", "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"),
        ("cohere2", "<|END_OF_TURN_TOKEN|>", "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"),
        ("cohere2", "<|END_RESPONSE|>", "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"),
        ("cohere2", "", "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"),
    ],
)
def test_message_is_closed_once_and_as_the_template_closes_it(name, written, shown):
    tokenizer = make_tokenizer(name)
    tokenizer.add_tokens(["<|eom_id|>"], special_tokens=True)
    stops = [token for token in (written[written.rfind("<") :], "<|user|>") if token not in ("", "<|end|>")]
    stops = [token for token in stops if token != "<|END_RESPONSE|>"]
    renderer = ChatRenderer(tokenizer, "a", None, tokenizer.convert_tokens_to_ids(stops), {})
    own = encode(name, SAID[0] + written)
    last, ids = renderer.between([Message("b", SAID[1])], own)
    _, _, after = split(name, QUESTION)
    assert after.startswith(shown)
    assert [*own[:-1], last, *ids] == encode(name, SAID[0] + after)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("_training")])
@pytest.mark.parametrize("said", ["", "  <|im_end|> <end_of_turn> </s> <|user|>\n"])
def test_empty_messages_and_control_tokens_of_others_leave_the_turns_as_they_are(name, said):
    renderer = ChatRenderer(make_tokenizer(name), "a", None, [make_tokenizer(name).eos_token_id], {})
    row = Transcript([{"role": "user", "content": QUESTION}], ("a", "b"))
    text = make_tokenizer(name).decode(renderer.opening(row, [Message("b", said)]))
    assert text == render(name, [("user", f"{QUESTION}\n\nb: {said.strip()}")])
    ids = renderer.opening(row, [Message("b", said)])
    controls = [i for i in ids if i in renderer.encoder.control_ids]
    plain = renderer.opening(row, [Message("b", "fine")])
    assert controls == [i for i in plain if i in renderer.encoder.control_ids]


THOUGHT = f"<think>\nhm\n</think>\n\n{SAID[0]}"


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "glm4moe", "deepseek_r1_distill", "lfm2_2_5"])
def test_own_thoughts_stay_as_sampled_where_the_template_drops_them_from_the_history(name):
    assert "hm" not in render(name, [("user", QUESTION), ("assistant", THOUGHT), ("user", f"b: {SAID[1]}")])
    opening, _, after = split(name, QUESTION)
    renderer = ChatRenderer(make_tokenizer(name), "a", None, [make_tokenizer(name).eos_token_id], {})
    view, row = View(), Transcript([{"role": "user", "content": QUESTION}], ("a", "b"))
    view.read(row, renderer, room=10_000)
    view.write(encode(name, THOUGHT))
    row.messages += [Message("a", THOUGHT), Message("b", SAID[1])]
    view.read(row, renderer, room=10_000)
    assert view.context == encode(name, opening) + encode(name, THOUGHT) + encode(name, after)


ORIGINAL = [name for name in NAMES if not name.endswith("_training")]


@pytest.mark.parametrize("name", ORIGINAL)
def test_system_prompts_are_shown_once_and_before_the_question(name):
    renderer = ChatRenderer(make_tokenizer(name), "a", "Be brief.", [make_tokenizer(name).eos_token_id], {})
    prompt = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": QUESTION}]
    text = make_tokenizer(name).decode(renderer.opening(Transcript(prompt, ("a", "b")), [Message("b", SAID[1])]))
    assert [text.count(part) for part in ("Be brief.\n\nBe kind.", QUESTION, SAID[1])] == [1, 1, 1]
    assert text.index("Be kind.") < text.index(QUESTION) < text.index(SAID[1])


@pytest.mark.parametrize("name", ORIGINAL)
def test_two_turns_of_the_user_in_a_row_are_shown_or_refused_with_the_rule_of_the_template(name):
    renderer = ChatRenderer(make_tokenizer(name), "a", None, [make_tokenizer(name).eos_token_id], {})
    row = Transcript([{"role": "user", "content": content} for content in ("First", QUESTION)], ("a", "b"))
    if name in ALTERNATE:
        rule = "template of agent 'a' refuses the prompt, whose turns .* are user, user: «Conversation roles must alternate"
        with pytest.raises(ValueError, match=rule):
            renderer.opening(row, [])
    else:
        text = make_tokenizer(name).decode(renderer.opening(row, []))
        assert text.index("First") < text.index(QUESTION)


@pytest.mark.parametrize("name", ORIGINAL)
def test_agent_that_speaks_twice_in_a_row_reads_what_the_template_writes_between(name):
    renderer = ChatRenderer(make_tokenizer(name), "a", None, [make_tokenizer(name).eos_token_id], {})
    own = encode(name, SAID[0]) + [make_tokenizer(name).eos_token_id]
    last, ids = renderer.between([], own)
    _, _, after = render(name, [("user", "dummy"), ("assistant", SAID[0])]).partition(SAID[0])
    assert [last, *ids] == encode(name, after)
