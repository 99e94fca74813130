"""Old teams, and options of an alignment that takes seconds."""

import pytest
from tiny import make_team

from trl_teamtr import Team
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
from trl_teamtr.conversation.rules import TurnTaking
from trl_teamtr.replacement import AlignmentConfig


@pytest.fixture
def make_old_team():
    """A team of two that speak twice each, in messages of at most two tokens."""

    def make(num_agents: int = 2, size: int = 4, num_rounds: int = 2, **fields) -> Team:
        settings = SpeakingSettings(SamplingSettings(max_completion_length=2))
        return Team.from_agents(make_team(num_agents, size, **fields), settings, TurnTaking(num_rounds))

    return make


@pytest.fixture
def make_args():
    """Options of an alignment that takes seconds."""

    def make(**fields) -> AlignmentConfig:
        defaults = {"use_cpu": True, "learning_rate": 1e-2, "num_train_epochs": 4, "eval_steps": 5}
        return AlignmentConfig(**(defaults | fields))

    return make
