"""Talks that go on together are those that are held alone."""

import pytest
from tiny import make_team

from trl_teamtr import Message, Team
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
from trl_teamtr.conversation.rules import TurnTaking
from trl_teamtr.rollouts.talks import Piece, Talk, Wishes


@pytest.fixture
def team():
    return Team.from_agents(make_team(2), SpeakingSettings(SamplingSettings(max_completion_length=6)), TurnTaking(2))


def hold(talks):
    while talks := [talk for talk in talks if not talk.ended]:
        Talk.go_on(talks)


def said(talk):
    return [(message.agent, message.ids) for message in talk.transcript.messages]


def test_a_talk_that_joins_late_is_the_talk_alone(team):
    alone = []
    for seed in range(4):
        alone.append(team.begin("au", wishes=Wishes(seed)))
        hold(alone[-1:])
    assert len({str(said(talk)) for talk in alone}) == 4 and all(len(said(talk)) == 4 for talk in alone)
    talks = [team.begin("au", wishes=Wishes(0)), team.begin("uua", wishes=Wishes(9))]
    Talk.go_on(talks)
    talks += [team.begin("au", wishes=Wishes(seed)) for seed in (1, 2)]
    Talk.go_on(talks)
    talks.append(team.begin("au", wishes=Wishes(3)))
    hold(talks)
    assert [said(talks[i]) for i in (0, 2, 3, 4)] == [said(talk) for talk in alone]


def test_a_listener_hears_every_message_begin_grow_and_end(team):
    events = []
    talk = team.begin("au", wishes=Wishes(1), listen=events.append)
    hold([talk])
    messages = [event for event in events if isinstance(event, Message)]
    assert messages == talk.transcript.messages
    for turn, message in enumerate(messages):
        own = [event for event in events if isinstance(event, Piece) and event.turn == turn]
        assert own[0] == Piece(message.agent, turn, "")
        assert "".join(piece.text for piece in own) == message.text
    order = [event.turn for event in events if isinstance(event, Piece)]
    assert order == sorted(order)


def test_a_cancelled_talk_ends_at_the_next_token_and_the_others_go_on(team):
    for seed in range(20):
        whole = team.begin("au", wishes=Wishes(seed))
        hold([whole])
        if len(said(whole)[0][1]) == 6:
            break
    talk, other = (team.begin("au", wishes=Wishes(seed)) for _ in range(2))

    def stop(event):
        talk.cancelled |= isinstance(event, Piece) and event.text != ""

    talk._listen = stop
    hold([talk, other])
    assert said(other) == said(whole)
    assert len(said(talk)) == 1 and talk.next is None and talk.ended
    assert said(talk)[0][1] == said(whole)[0][1][: len(said(talk)[0][1])] and len(said(talk)[0][1]) < 6


def test_a_router_is_asked_once_for_each_turn(team):
    asked = []
    team.rules.router = lambda transcript: asked.append(len(transcript.messages)) or "yx"[len(transcript.messages) % 2]
    talk = team.begin("au")
    hold([talk])
    assert asked == [0, 1, 2, 3] and [message.agent for message in talk.transcript.messages] == ["y", "x"] * 2


def test_a_talk_whose_context_is_full_ends():
    team = Team.from_agents(
        make_team(2), SpeakingSettings(SamplingSettings(max_completion_length=40)), TurnTaking(num_rounds=9)
    )
    talk = team.begin("a" * 40, wishes=Wishes(1, temperature=9.0))
    hold([talk])
    assert talk.full in ("x", "y") and 1 <= len(talk.transcript.messages) < 18


def test_no_talks_are_no_turn():
    Talk.go_on([])
