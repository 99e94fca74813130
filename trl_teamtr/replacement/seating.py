"""Teams with other members: the same rules, settings and weights of those who stay."""

from collections.abc import Sequence
from typing import Any

from ..agents.agent import Agent
from ..agents.team_file import describe_model
from ..conversation.router import RandomRouter, RoundRobinRouter
from ..policy.participant import Participant
from ..team import Team


def find_member(team: Team, name: str) -> Participant:
    """
    The member of that name.

    Raises:
        `ValueError`: If there is none.
    """
    for speaker in team.speakers:
        if speaker.name == name:
            return speaker
    raise ValueError(f"The team has no member {name!r}. Its members are {', '.join(team.names)}.")


def team_of(team: Team, agents: Sequence[Agent]) -> Team:
    """
    A team of `agents` that takes turns, samples and reads as `team` does. Models that are loaded are shared, not copied.

    Raises:
        `ValueError`: If a member cannot be in it: two names are alike, or one has tools and its chat template has none.
    """
    rules, settings = team.rules, team.settings
    own = None if _is_of_turns(team) else rules.router
    environments = settings.environments
    made = Team.from_agents(
        agents,
        settings,
        team.turns,
        router=own,
        stop_condition=rules.stop_condition,
        accelerator=team.accelerator,
        environment_factory=None if environments is None else environments.of_team,
    )
    if made.names == team.names:
        made.rules.router, made.rules.max_turns = rules.router, rules.max_turns
    made.conversational = team.conversational
    for speaker in made.local_speakers:
        speaker.policy.model.eval()
    return made


def _is_of_turns(team: Team) -> bool:
    """Whether the router is the one that the options of the turns name, which counts the members."""
    router, most = team.rules.router, team.rules.max_turns
    if isinstance(router, RandomRouter):
        return team.turns.router == "random" and router.max_turns == most
    return isinstance(router, RoundRobinRouter) and team.turns.router == "round_robin" and router.max_turns == most


def describe(agent: Agent) -> str:
    """The model of a member, in a few words."""
    model: Any = agent.model
    if isinstance(model, str):
        return model
    described = describe_model(agent, model)
    size = sum(parameter.numel() for parameter in model.parameters())
    name = described["base_model"]["id"] or type(model).__name__
    return f"{name}{' with an adapter' if described['is_adapter'] else ''} ({size:,} parameters)"
