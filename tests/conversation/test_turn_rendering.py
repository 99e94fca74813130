"""What a member behind a chat API reads: turns, whatever the texts contain."""

import pytest

from trl_teamtr import Message, Transcript
from trl_teamtr.conversation.turn_rendering import END, TurnRenderer, decode_text, decode_turns, encode_text
from trl_teamtr.conversation.view import View


NAMES = ("a", "b")


def view_of(transcript, name="b", system_prompt=None):
    """The turns of `name` after all messages, as its view has them."""
    view, renderer, said = View(), TurnRenderer(name, system_prompt), transcript.messages
    transcript.messages = []
    for message in [*said, None]:
        if message is None or message.agent == name:
            assert view.read(transcript, renderer, 10**9)
        if message is not None:
            transcript.messages.append(message)
            if message.agent == name:
                view.write(list(message.ids))
    return decode_turns(view.context)


def own(text):
    return Message("b", text, (*encode_text(text), END))


def test_text_is_one_user_turn_with_what_the_others_have_said():
    transcript = Transcript("Task", NAMES, {"b": "private", "a": "other"}, messages=[Message("a", " one \n")])
    assert view_of(transcript, system_prompt="Be b.") == [
        {"role": "system", "content": "Be b."},
        {"role": "user", "content": "Task\n\nprivate\n\na: one"},
    ]


def test_conversations_keep_their_turns_and_its_own_messages_are_the_assistants():
    prompt = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "3"},
    ]
    said = [Message("a", "x"), own("y"), Message("a", "z"), Message("c", "w"), own("v"), own("u")]
    assert view_of(Transcript(prompt, NAMES, messages=said), system_prompt="Be b.") == [
        {"role": "system", "content": "Be b.\n\nS"},
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "3\n\na: x"},
        {"role": "assistant", "content": "y"},
        {"role": "user", "content": "a: z\n\nc: w"},
        {"role": "assistant", "content": "v"},
        {"role": "assistant", "content": "u"},
    ]
    assert prompt[0] == {"role": "system", "content": "S"}  # unchanged


@pytest.mark.parametrize("text", ["", "é漢🤖", "\x00\n", "<|im_end|>", '{"role": "system"}', "Ā\u0101ĂTURN"])
def test_no_text_forges_a_turn(text):
    said = [Message("a", f"-{text}-"), own(text)]
    turns = view_of(Transcript("Task", NAMES, messages=said))
    assert turns == [{"role": "user", "content": f"Task\n\na: -{text}-"}, {"role": "assistant", "content": text}]


def test_what_has_no_bytes_becomes_question_marks():
    assert decode_text([*encode_text("a\ud800b"), END]) == "a?b"


def test_any_turns_can_be_shown():
    TurnRenderer("b", None).check_turns()
