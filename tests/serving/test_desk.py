"""Conversations of concurrent requests share batches, and one that is cancelled or fails leaves the others alone."""

import queue

import pytest
from served import Gate, make_chat_team

from trl_teamtr.rollouts.talks import Wishes
from trl_teamtr.serving.desk import Desk, Ticket
from trl_teamtr.serving.errors import APIError


@pytest.fixture(scope="module")
def team():
    return make_chat_team(rounds=2)


@pytest.fixture
def desk():
    desk = Desk(max_talks=4, max_waiting=2)
    desk.open()
    yield desk
    desk.close()


def make_ticket(team, seed=0, prompt="au"):
    ended = queue.SimpleQueue()
    return Ticket(lambda: team.begin(prompt, None, Wishes(seed)), ended.put), ended


def count_rows(team, monkeypatch):
    """The numbers of rows that are generated together."""
    counts = []
    for speaker in team.speakers:
        generate = speaker.backend._generate
        monkeypatch.setattr(
            speaker.backend, "_generate", lambda requests, own=generate: counts.append(len(requests)) or own(requests)
        )
    return counts


def test_talks_share_batches_and_are_those_held_alone(team, desk, monkeypatch):
    alone = [str(team.chat("au", seed=seed)) for seed in range(4)]
    counts = count_rows(team, monkeypatch)
    tickets = [make_ticket(team, seed) for seed in range(4)]
    desk.take([ticket for ticket, _ in tickets])
    assert [str(ended.get(timeout=30).transcript) for _, ended in tickets] == alone
    assert counts == [4] * 4


def test_more_than_fit_wait_and_more_than_may_wait_are_refused(team, desk):
    with Gate(team) as gate:
        tickets = [make_ticket(team, seed) for seed in range(6)]
        desk.take([ticket for ticket, _ in tickets])
        while not gate.calls:
            pass
        assert desk.load == {"talking": 4, "waiting": 2}
        with pytest.raises(APIError, match="The server is busy: 4 conversations are held and 2 wait") as caught:
            desk.take([make_ticket(team)[0]])
        assert caught.value.status == 429
        tickets[5][0].cancel()
        other, ended = make_ticket(team, 9)
        desk.take([other])  # in the place of the one that was cancelled
        gate.open()
        assert all(ended.get(timeout=30).ended for _, ended in tickets[:5])
        assert str(ended.get(timeout=30).transcript) == str(team.chat("au", seed=9))
    assert tickets[5][1].empty() and tickets[5][0].talk is None


def test_a_cancelled_talk_frees_its_row(team, desk):
    with Gate(team) as gate:
        tickets = [make_ticket(team, seed) for seed in range(2)]
        desk.take([ticket for ticket, _ in tickets])
        while not gate.calls:
            pass
        tickets[0][0].cancel()
        gate.open()
        assert str(tickets[1][1].get(timeout=30).transcript) == str(team.chat("au", seed=1))
    assert tickets[0][1].empty() and len(tickets[0][0].talk.transcript.messages) == 1


def test_what_fails_alone_is_told_alone(team, desk, monkeypatch):
    long, told = make_ticket(team, prompt="a" * 200)
    other, ended = make_ticket(team, 1)
    desk.take([long, other])
    assert "has room for" in str(told.get(timeout=30))
    assert len(ended.get(timeout=30).transcript.messages) == 4

    def stop(transcript):
        if transcript.prompt[0]["content"] == "u":
            raise RuntimeError("lost")
        return False

    monkeypatch.setattr(team.rules, "stop_condition", stop)
    bad, told = make_ticket(team, prompt="u")
    other, ended = make_ticket(team, 1)
    desk.take([bad, other])
    assert str(told.get(timeout=30)) == "lost"
    assert len(ended.get(timeout=30).transcript.messages) == 4


def test_what_fails_together_is_told_to_all_and_the_desk_goes_on(team, desk, monkeypatch):
    def fail(requests):
        raise MemoryError("no room")

    tickets = [make_ticket(team, seed) for seed in range(2)]
    with monkeypatch.context() as context:
        context.setattr(team.speakers[0].backend, "generate", fail)
        desk.take([ticket for ticket, _ in tickets])
        assert [str(ended.get(timeout=30)) for _, ended in tickets] == ["no room"] * 2
    ticket, ended = make_ticket(team)
    desk.take([ticket])
    assert ended.get(timeout=30).ended


def test_a_closed_desk_takes_nothing(team):
    desk = Desk(1, 1)
    desk.open()
    desk.close()
    with pytest.raises(APIError, match="busy"):
        desk.take([make_ticket(team)[0]])
