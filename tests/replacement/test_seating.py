import pytest
from newcomers import make_newcomer
from tiny import make_team

from trl_teamtr import Agent, RandomRouter, Team
from trl_teamtr.conversation.rules import TurnTaking
from trl_teamtr.replacement.seating import describe, find_member, team_of


def test_a_team_with_other_members_has_the_rules_of_the_first(make_old_team):
    first = make_old_team()

    def stop(transcript):
        return len(transcript.messages) == 3

    team = Team.from_agents(
        make_team(2, 4), first.settings, TurnTaking(2, stop_string="b"), router=RandomRouter(7), stop_condition=stop
    )
    team.conversational = False
    agents = [speaker.agent for speaker in team.speakers]
    same = team_of(team, [agents[0], make_newcomer("y")])
    assert same.rules.router is team.rules.router and same.rules.stop_condition is stop
    assert same.rules.stop_string == "b" and same.conversational is False and same.turns == team.turns
    assert not any(speaker.policy.model.training for speaker in same.local_speakers)
    more = team_of(team, [*agents, make_newcomer("z")])
    assert more.rules.max_turns == 6 and more.names == ("x", "y", "z")
    assert more.rules.router is team.rules.router  # the user's own
    built_in = Team.from_agents(agents, first.settings, TurnTaking(2, router="random"))
    drawn = team_of(built_in, [*agents, make_newcomer("z")]).rules.router
    assert isinstance(drawn, RandomRouter) and drawn.max_turns == 6
    kept = next(more.speakers[0].policy.model.parameters())
    assert kept is next(team.speakers[0].policy.model.parameters())


def test_members_are_found_and_described(make_old_team):
    team = make_old_team()
    assert find_member(team, "y") is team.speakers[1]
    with pytest.raises(ValueError, match="The team has no member 'q'. Its members are x, y"):
        find_member(team, "q")
    assert describe(Agent("y", "a/path")) == "a/path"
    assert describe(team.speakers[0].agent).startswith("Qwen3ForCausalLM (2,496 parameters")
