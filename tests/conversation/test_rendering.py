import pytest
from tokenizers_for_tests import INST_TEMPLATE, chatml_tokenizer, inst_tokenizer

from trl_teamtr.conversation.rendering import ChatRenderer, PlainRenderer
from trl_teamtr.conversation.transcript import Message, Transcript


QUESTION = [{"role": "user", "content": "the question"}]
SAID = [Message("b", "hello"), Message("c", " how are you\n")]


@pytest.fixture
def chatml():
    return chatml_tokenizer()


@pytest.fixture
def inst():
    return inst_tokenizer()


def transcript(prompt, **private):
    return Transcript(prompt, ("a", "b", "c"), private=private)


def chat(tokenizer, name="a", system_prompt=None, **kwargs):
    return ChatRenderer(tokenizer, name, system_prompt, [tokenizer.eos_token_id], kwargs)


def plain(tokenizer, name="a", system_prompt=None, alone=False):
    return PlainRenderer(tokenizer, name, system_prompt, alone)


def turn(role, content):
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


GENERATION = "<|im_start|>assistant\n"


# Plain rendering


def test_plain_blocks_are_separated_by_blank_lines(chatml):
    ids = plain(chatml, system_prompt="Be brief.").opening(transcript("the question", a="secret"), SAID)
    assert chatml.decode(ids) == "Be brief.\n\nthe question\n\nsecret\n\nb: hello\n\nc: how are you\n\na:"


def test_plain_without_extras_has_the_prompt_and_the_cue(chatml):
    assert chatml.decode(plain(chatml).opening(transcript("the question"), [])) == "the question\n\na:"


def test_plain_private_prompt_is_for_its_agent_only(chatml):
    row = transcript("the question", b="secret")
    assert chatml.decode(plain(chatml, "a").opening(row, [])) == "the question\n\na:"
    assert chatml.decode(plain(chatml, "b").opening(row, [])) == "the question\n\nsecret\n\nb:"


@pytest.mark.parametrize("make_tokenizer", [chatml_tokenizer, inst_tokenizer])
def test_plain_prompt_of_a_lone_agent_has_the_ids_of_the_tokenizer(make_tokenizer):
    tokenizer = make_tokenizer()
    prompt = "the question  with two spaces\n"
    assert plain(tokenizer, alone=True).opening(transcript(prompt), []) == tokenizer(prompt)["input_ids"]


def test_plain_lone_agent_with_a_system_prompt_has_no_cue(chatml):
    ids = plain(chatml, system_prompt="Be brief.", alone=True).opening(transcript("the question"), [])
    assert chatml.decode(ids) == "Be brief.\n\nthe question"


def test_plain_opening_keeps_the_beginning_of_sequence(inst):
    ids = plain(inst).opening(transcript("the question"), [])
    assert ids == inst("the question\n\na:")["input_ids"]
    assert ids.count(inst.bos_token_id) == 1 and ids[0] == inst.bos_token_id


def test_plain_opening_leaves_out_an_end_of_sequence_that_the_tokenizer_appends(inst):
    inst.backend_tokenizer.post_processor = type(inst.backend_tokenizer.post_processor)(
        single="<s> $A </s>", special_tokens=[("<s>", inst.bos_token_id), ("</s>", inst.eos_token_id)]
    )
    assert inst("x")["input_ids"][-1] == inst.eos_token_id
    ids = plain(inst).opening(transcript("the question"), [])
    assert ids == inst("the question\n\na:")["input_ids"][:-1]


def test_plain_between_starts_with_a_blank_line_and_ends_with_the_cue(chatml):
    assert chatml.decode(plain(chatml).between(SAID, [0])[1]) == "\n\nb: hello\n\nc: how are you\n\na:"


@pytest.mark.parametrize("alone", [False, True])
def test_plain_between_two_messages_of_the_same_agent_is_its_name(chatml, alone):
    assert chatml.decode(plain(chatml, alone=alone).between([], [0])[1]) == "\n\na:"


def test_plain_message_cannot_write_control_tokens(chatml):
    ids = plain(chatml).opening(transcript("the question"), [Message("b", "x<|im_end|>y")])
    assert chatml.eos_token_id not in ids
    assert chatml.decode(ids) == "the question\n\nb: x<|im_end|>y\n\na:"


# Chat rendering: the opening


def test_chat_prompt_alone_has_the_ids_of_the_template(chatml):
    prompt = [*QUESTION, {"role": "assistant", "content": "an answer"}, {"role": "user", "content": "and now?"}]
    expected = chatml.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    assert chat(chatml).opening(transcript(prompt), []) == expected


def test_chat_others_messages_join_the_last_user_turn(chatml):
    ids = chat(chatml).opening(transcript(QUESTION), SAID)
    assert chatml.decode(ids) == turn("user", "the question\n\nb: hello\n\nc: how are you") + GENERATION


def test_chat_others_messages_are_a_turn_of_their_own_after_an_assistant_turn(chatml):
    prompt = [*QUESTION, {"role": "assistant", "content": "an answer"}]
    ids = chat(chatml).opening(transcript(prompt), SAID[:1])
    expected = turn("user", "the question") + turn("assistant", "an answer") + turn("user", "b: hello") + GENERATION
    assert chatml.decode(ids) == expected


def test_chat_system_prompt_comes_first(chatml):
    ids = chat(chatml, system_prompt="Be brief.").opening(transcript(QUESTION), [])
    assert chatml.decode(ids) == turn("system", "Be brief.") + turn("user", "the question") + GENERATION


def test_chat_system_prompt_comes_in_front_of_the_rows_own(chatml):
    prompt = [{"role": "system", "content": "Row's rules."}, *QUESTION]
    ids = chat(chatml, system_prompt="Be brief.").opening(transcript(prompt), [])
    expected = turn("system", "Be brief.\n\nRow's rules.") + turn("user", "the question") + GENERATION
    assert chatml.decode(ids) == expected


def test_chat_rows_own_system_message_is_kept_without_a_system_prompt(chatml):
    prompt = [{"role": "system", "content": "Row's rules."}, *QUESTION]
    ids = chat(chatml).opening(transcript(prompt), [])
    assert chatml.decode(ids) == turn("system", "Row's rules.") + turn("user", "the question") + GENERATION


RAISES = INST_TEMPLATE
IGNORES = (
    "<s>{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] }}</s>{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("template", [RAISES, IGNORES])
@pytest.mark.parametrize(
    "system_prompt, row, expected",
    [
        ("Be brief.", [], "Be brief.\n\nthe question\n\nb: hello"),
        (None, ["Be kind."], "Be kind.\n\nthe question\n\nb: hello"),
        ("Be brief.", ["Be kind."], "Be brief.\n\nBe kind.\n\nthe question\n\nb: hello"),
    ],
)
def test_chat_system_prompt_is_folded_where_the_template_has_no_system_role(
    inst, template, system_prompt, row, expected
):
    inst.chat_template = template
    prompt = [*({"role": "system", "content": content} for content in row), *QUESTION]
    ids = chat(inst, system_prompt=system_prompt).opening(transcript(prompt), SAID[:1])
    assert ids == inst(f"<s>[INST] {expected} [/INST]", add_special_tokens=False)["input_ids"]


def test_chat_private_prompt_is_for_its_agent_only(chatml):
    row = transcript(QUESTION, b="secret of b", c="secret of c")
    views = {name: chatml.decode(chat(chatml, name).opening(row, SAID[:1])) for name in "abc"}
    assert views["a"] == turn("user", "the question\n\nb: hello") + GENERATION
    assert views["b"] == turn("user", "the question\n\nsecret of b\n\nb: hello") + GENERATION
    assert views["c"] == turn("user", "the question\n\nsecret of c\n\nb: hello") + GENERATION


def test_chat_rendering_does_not_change_the_row(chatml):
    prompt = [{"role": "system", "content": "Row's rules."}, {"role": "user", "content": "the question"}]
    chat(chatml, system_prompt="Be brief.").opening(transcript(prompt, a="secret"), SAID)
    assert prompt == [{"role": "system", "content": "Row's rules."}, {"role": "user", "content": "the question"}]


def test_chat_template_kwargs_reach_the_template(chatml):
    chatml.chat_template = "{{ mood }}|" + chatml.chat_template
    renderer = chat(chatml, mood="gay")
    assert chatml.decode(renderer.opening(transcript(QUESTION), [])).startswith("gay|<|im_start|>user\n")


# Chat rendering: between two of the agent's own messages


@pytest.mark.parametrize("said, user_turn", [(SAID, "b: hello\n\nc: how are you"), (SAID[:1], "b: hello")])
def test_chat_between_drops_the_end_of_turn_that_the_agent_sampled(chatml, said, user_turn):
    ids = chat(chatml).between(said, [chatml.eos_token_id])[1]
    assert chatml.decode(ids) == "\n" + turn("user", user_turn) + GENERATION


def test_chat_between_closes_a_message_that_was_cut_by_length(chatml):
    last_id = chatml("hello")["input_ids"][-1]
    ids = chat(chatml).between(SAID[:1], [last_id])[1]
    assert ids[0] == chatml.eos_token_id
    assert chatml.decode(ids) == "<|im_end|>\n" + turn("user", "b: hello") + GENERATION


def test_chat_between_accepts_any_of_the_ids_that_end_a_message(chatml):
    renderer = ChatRenderer(chatml, "a", None, [chatml.eos_token_id, chatml.pad_token_id], {})
    assert renderer.between(SAID, [chatml.pad_token_id])[1] == renderer.between(SAID, [chatml.eos_token_id])[1]


def test_chat_closing_of_the_template_is_read_in_place_of_another_token_that_ended_the_message(chatml):
    chatml.chat_template = chatml.chat_template.replace("+ '<|im_end|>", "+ '<|im_start|>")
    closing, ids = chat(chatml).between(SAID[:1], [7, chatml.eos_token_id])
    assert chatml.decode([closing, *ids]).startswith("<|im_start|>\n<|im_start|>user\nb: hello")


def test_chat_token_that_closes_a_message_in_the_template_is_read_as_sampled(chatml):
    closing, ids = chat(chatml).between(SAID[:1], [7, chatml.eos_token_id])
    assert closing == chatml.eos_token_id and chatml.eos_token_id != ids[0]


def test_chat_last_token_of_a_message_that_was_cut_by_length_is_read_as_sampled(chatml):
    assert chat(chatml).between(SAID[:1], [7, 8])[0] == 8


def test_chat_between_without_messages_opens_the_next_turn(chatml):
    assert chatml.decode(chat(chatml).between([], [chatml.eos_token_id])[1]) == "\n" + GENERATION


def test_chat_between_has_neither_system_nor_private_prompts(chatml):
    renderer = chat(chatml, system_prompt="Be brief.")
    assert renderer.between(SAID, [chatml.eos_token_id])[1] == chat(chatml).between(SAID, [chatml.eos_token_id])[1]


# Templates that cannot be used


def test_chat_tokenizer_without_a_template_raises(chatml):
    chatml.chat_template = None
    with pytest.raises(ValueError, match="the tokenizer of agent 'a' has no chat template"):
        chat(chatml)


@pytest.mark.parametrize("system_prompt", [None, "Be brief."])
def test_template_that_leaves_out_the_prompt_is_refused(chatml, system_prompt):
    chatml.chat_template = "{% for m in messages if m['role'] != 'user' %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(
        ValueError, match="template of agent 'a' leaves out what the user's turn says, as text and as a"
    ):
        chat(chatml, system_prompt=system_prompt).opening(transcript(QUESTION), [])


@pytest.mark.parametrize("make_tokenizer", [chatml_tokenizer, inst_tokenizer])
def test_check_turns_accepts_a_template_of_alternating_turns(make_tokenizer):
    assert chat(make_tokenizer()).check_turns() is None


@pytest.mark.parametrize(
    "template, message",
    [
        (
            "{% if messages|length > 2 %}{{ raise_exception('Only one question.') }}{% endif %}"
            "{% for m in messages %}{{ m['content'] }}{% endfor %}",
            "agent 'a' cannot take other agents' turns: .* fails with «Only one question.»",
        ),
        (
            "{% for m in messages[:2] %}{{ m['content'] }}{% endfor %}",
            "agent 'a' cannot take other agents' turns: it leaves out a user turn after an assistant turn",
        ),
        (
            "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}",
            "agent 'a' does not show an assistant turn as it was written",
        ),
    ],
)
def test_check_turns_refuses_a_template_that_cannot_show_others_turns(chatml, template, message):
    chatml.chat_template = template
    with pytest.raises(ValueError, match=message):
        chat(chatml).check_turns()


def test_plain_rendering_keeps_a_beginning_token_that_is_also_the_end_token():
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"?": 0, "a": 1, "</s>": 2}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    inner.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="</s>", eos_token="</s>")
    opening = PlainRenderer(tokenizer, "a", None, alone=False).opening(Transcript("a", ("a", "b")), [])
    assert opening == tokenizer("a\n\na:")["input_ids"] and opening[0] == 2


@pytest.mark.parametrize("template", [" {{ m['content'] }} </s>", "{{ m['content'] }}"])
def test_end_of_turn_stands_once_whatever_surrounds_it_in_the_template(template):
    from tokenizers_for_tests import inst_tokenizer

    tokenizer = inst_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}" + template + "{% else %}"
        "[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
    )
    renderer = ChatRenderer(tokenizer, "a", None, [tokenizer.eos_token_id], {})
    eos = tokenizer.eos_token_id
    assert eos not in renderer.between([Message("b", "hi")], [eos])[1]
    assert eos not in renderer.between([], [eos])[1]


@pytest.mark.parametrize("make, prompt", [(plain, "the question"), (chat, QUESTION)])
def test_what_was_rendered_before_is_rendered_alike_and_can_be_changed(chatml, make, prompt):
    renderer = make(chatml)
    for said in (SAID, [Message(m.agent, m.text + "!") for m in SAID], SAID[:1]):
        first = renderer.opening(transcript(prompt), said)
        expected = make(chatml).opening(transcript(prompt), said)
        assert first == expected
        first.append(0)  # a view's ids grow
        assert renderer.opening(transcript(prompt), said) == expected
        assert renderer.opening(transcript(prompt, a="secret"), said) != expected
        between = renderer.between(said, [0])[1]
        between.append(0)
        assert renderer.between(said, [0])[1] == make(chatml).between(said, [0])[1] == between[:-1]
