"""A talk is heard while it is generated."""

import threading

import pytest
from tiny import make_team

from trl_teamtr import Team
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
from trl_teamtr.conversation.rules import TurnTaking


@pytest.fixture
def team():
    return Team.from_agents(make_team(2), SpeakingSettings(SamplingSettings(max_completion_length=8)), TurnTaking(2))


def test_messages_are_those_of_chat(team):
    whole = team.chat("au", seed=4)
    heard = []
    for message in team.stream("au", seed=4):
        pieces = list(message)
        assert message.text == "".join(pieces)
        heard.append((message.agent, message.turn, message.text))
    assert heard == [(m.agent, turn, m.text) for turn, m in enumerate(whole.messages)]


def test_a_message_that_is_not_read_is_not_lost(team):
    whole = team.chat("au", seed=4)
    assert [str(message) for message in team.stream("au", seed=4)] == str(whole).split("\n")
    assert [message.agent for message in team.stream("au", seed=4)] == ["x", "y", "x", "y"]


def test_who_stops_listening_ends_the_talk(team):
    before = threading.active_count()
    stream = team.stream("au", seed=4)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_an_error_is_raised_where_it_is_listened_to(team):
    def lose(transcript):
        return "x" if not transcript.messages else "nobody"

    team.rules.router = lose
    with pytest.raises(ValueError, match="The router answered 'nobody'"):
        for message in team.stream("au", seed=4):
            assert message.agent == "x"
