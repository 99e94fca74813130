from dataclasses import FrozenInstanceError

import pytest

from trl_teamtr.conversation.transcript import Message, Transcript


def make_transcript():
    return Transcript("task", ("a", "b"), messages=[Message("a", "first", (1, 2)), Message("b", "second")])


def test_final_text_is_the_last_message():
    assert make_transcript().final_text == "second"


def test_final_text_of_an_empty_rollout_is_empty():
    assert Transcript("task", ("a",)).final_text == ""


def test_as_dicts_is_what_reward_functions_read():
    assert make_transcript().as_dicts() == [
        {"role": "assistant", "name": "a", "content": "first"},
        {"role": "assistant", "name": "b", "content": "second"},
    ]


def test_str_shows_one_message_a_line():
    assert str(make_transcript()) == "a: first\nb: second"


def test_messages_and_private_prompts_are_not_shared_between_transcripts():
    one, other = Transcript("task", ("a",)), Transcript("task", ("a",))
    one.messages.append(Message("a", "text"))
    one.private["a"] = "secret"
    assert other.messages == [] and other.private == {}


def test_a_message_cannot_be_changed():
    message = Message("a", "text")
    assert (message.ids, message.finished) == ((), True)
    with pytest.raises(FrozenInstanceError):
        message.text = "other"
