import copy

import pytest

from trl_teamtr.conversation.transcript import Message, Transcript
from trl_teamtr.conversation.view import View, stack_views


class NumberRenderer:
    """A message "7" reads 7 7; an opening starts with 1, what stands between own messages with 2 and the last id."""

    forgets = False

    def opening(self, transcript, messages):
        return [1] + self.quote(messages)

    def between(self, messages, own):
        return own[-1], [2, own[-1]] + self.quote(messages)

    @staticmethod
    def quote(messages):
        return [int(message.text) for message in messages for _ in range(2)]


class ForgetfulRenderer(NumberRenderer):
    """Of a message of its reader it shows the text alone, after a 3."""

    forgets = True

    def history(self, transcript, messages):
        shown = [[3, int(m.text)] if m.agent == "a" else self.quote([m]) for m in messages]
        return [1, *(token for ids in shown for token in ids)]


RENDERER, FORGETFUL = NumberRenderer(), ForgetfulRenderer()


def transcript(*numbers):
    return Transcript("task", ("a", "b"), messages=[Message("b", str(number)) for number in numbers])


def speak(view, row, ids):
    """The agent of `view` writes `ids`."""
    row.messages.append(Message("a", "99", tuple(ids)))
    view.write(ids)


def listen(row, *numbers):
    row.messages.extend(Message("b", str(number)) for number in numbers)


def test_a_new_view_is_empty():
    view = View()
    assert view.context == [] and (view.num_messages, view.num_read, view.num_cut) == (0, 0, 0)


def test_first_reading_is_the_prompt():
    view, row = View(), transcript(11, 12)
    assert view.read(row, RENDERER, room=100)
    assert view.prompt_ids == view.context == [1, 11, 11, 12, 12]
    assert view.completion_ids == view.mask == []
    assert (view.num_messages, view.num_read, view.num_cut) == (0, 2, 0)


def test_own_ids_stand_verbatim_and_are_masked_in():
    view, row = View(), transcript(11)
    view.read(row, RENDERER, room=100)
    speak(view, row, [50, 51, 52])
    listen(row, 12, 13)
    view.read(row, RENDERER, room=100)
    speak(view, row, [60])
    assert view.prompt_ids == [1, 11, 11]
    assert view.completion_ids == [50, 51, 52, 2, 52, 12, 12, 13, 13, 60]
    assert view.mask == [1, 1, 1, 0, 0, 0, 0, 0, 0, 1]
    assert view.context == view.prompt_ids + view.completion_ids
    assert (view.num_messages, view.num_read, view.num_cut) == (2, 5, 0)


def test_agent_that_speaks_twice_in_a_row_reads_only_what_opens_its_turn():
    view, row = View(), transcript()
    view.read(row, RENDERER, room=100)
    speak(view, row, [50])
    view.read(row, RENDERER, room=100)
    assert view.completion_ids == [50, 2, 50] and view.mask == [1, 0, 0]


@pytest.mark.parametrize(
    "room, prompt_ids, num_cut",
    [
        (7, [1, 11, 11, 12, 12, 13, 13], 0),
        (6, [1, 12, 12, 13, 13], 1),
        (5, [1, 12, 12, 13, 13], 1),
        (4, [1, 13, 13], 2),
        (1, [1], 3),
    ],
)
def test_oldest_unread_messages_are_cut_where_room_is_short(room, prompt_ids, num_cut):
    view = View()
    assert view.read(transcript(11, 12, 13), RENDERER, room)
    assert view.prompt_ids == prompt_ids
    assert (view.num_read, view.num_cut) == (3, num_cut)


def test_room_counts_what_the_view_holds_already():
    view, row = View(), transcript(11)
    view.read(row, RENDERER, room=100)
    speak(view, row, [50, 51])
    listen(row, 12, 13)
    assert view.read(row, RENDERER, room=9)  # 5 held, 2 that open the turn, 2 for one message
    assert view.completion_ids == [50, 51, 2, 51, 13, 13]
    assert view.mask == [1, 1, 0, 0, 0, 0]
    assert (view.num_read, view.num_cut) == (4, 1)


def test_cuts_add_up_and_messages_once_cut_are_not_read_later():
    view, row = View(), transcript(11, 12)
    view.read(row, RENDERER, room=3)
    speak(view, row, [50])
    listen(row, 13, 14)
    view.read(row, RENDERER, room=8)
    speak(view, row, [60])
    view.read(row, RENDERER, room=100)
    assert view.context == [1, 12, 12, 50, 2, 50, 14, 14, 60, 2, 60]
    assert view.num_cut == 2


def test_opening_that_does_not_fit_leaves_the_view_as_it_was():
    view = View()
    assert not view.read(transcript(11), RENDERER, room=0)
    assert view == View()


def test_turn_that_does_not_fit_leaves_the_view_as_it_was():
    view, row = View(), transcript(11)
    view.read(row, RENDERER, room=100)
    speak(view, row, [50, 51])
    listen(row, 12)
    before = copy.deepcopy(view)
    assert not view.read(row, RENDERER, room=6)
    assert view == before
    assert view.read(row, RENDERER, room=7)
    assert view.num_cut == 1


def test_silent_agent_ends_with_one_masked_dummy():
    view = View()
    view.end(dummy_id=5)
    assert (view.prompt_ids, view.completion_ids, view.mask) == ([5], [5], [0])
    assert view.num_messages == 0


def test_agent_that_only_read_ends_with_one_masked_dummy():
    view = View()
    view.read(transcript(11), RENDERER, room=100)
    view.end(dummy_id=5)
    assert (view.prompt_ids, view.completion_ids, view.mask) == ([5], [5], [0])


def test_end_leaves_the_view_of_an_agent_that_spoke():
    view, row = View(), transcript(11)
    view.read(row, RENDERER, room=100)
    speak(view, row, [50])
    before = copy.deepcopy(view)
    view.end(dummy_id=5)
    assert view == before


def test_messages_that_are_read_again_are_context():
    view, row = View(), transcript(11)
    assert view.read(row, FORGETFUL, room=100)
    speak(view, row, [50, 51])
    listen(row, 12)
    assert view.holds(0) and view.read(row, FORGETFUL, room=100)
    speak(view, row, [60, 61, 62])
    listen(row, 13)
    assert view.read(row, FORGETFUL, room=100)
    speak(view, row, [70])
    assert view.prompt_ids == [1, 11, 11, 3, 99, 12, 12, 3, 99, 13, 13]
    assert (view.completion_ids, view.mask, view.message_numbers()) == ([70], [1], [2])
    assert (view.num_messages, view.num_read, view.opening_ids) == (3, 6, [1, 11, 11])
    contexts = [[1, 11, 11], [1, 11, 11, 3, 99, 12, 12], view.prompt_ids]
    assert [view.context_of(number) for number in range(3)] == contexts
    assert [view.holds(number) for number in range(3)] == [False, False, True]
    batch = stack_views([view, View([1], [5], [1], 1, starts=[1], logps=[0.0])], 0)
    assert batch["num_messages"].tolist() == [1, 1] and batch["first_message"].tolist() == [2, 0]


def test_segments_of_a_message_that_is_read_again_are_found():
    view, row = View(), transcript()
    view.read(row, FORGETFUL, room=100)
    view.write([50, 51])
    view.hear(51, [8, 8])
    view.write([52], goes_on=True)
    row.messages.append(Message("a", "99", (50, 51, 52)))
    assert view.read(row, FORGETFUL, room=100)
    assert view.context == [1, 3, 99] and view.context_of(0, 1) == [1, 50, 51, 8, 8]


def test_what_was_left_out_stays_so_when_a_view_is_read_again():
    view, row = View(), transcript(11, 12)
    assert view.read(row, FORGETFUL, room=3) and view.context == [1, 12, 12]
    speak(view, row, [50])
    listen(row, 13, 14)
    assert view.read(row, FORGETFUL, room=7)
    assert view.context == [1, 12, 12, 3, 99, 14, 14] and view.left_out == {0, 3}
    assert view.num_cut == 2
    before = copy.deepcopy(view)
    speak(view, row, [60])
    told = copy.deepcopy(view)
    assert not view.read(row, FORGETFUL, room=4) and view == told  # even without what it has not read
    assert before.earlier[0].context == [1, 12, 12, 50]
