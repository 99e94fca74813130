"""Trust-region fine-tuning for teams of LLM agents, on top of Hugging Face TRL."""

from .agents.agent import Agent
from .agents.team_file import load_team
from .conversation.router import RandomRouter, RoundRobinRouter
from .conversation.transcript import Message, Transcript
from .planning import plan
from .team import Team
from .teamtr_config import TeamTRConfig
from .teamtr_trainer import TeamTRTrainer


__version__ = "0.1.0"

__all__ = [
    "Agent",
    "Message",
    "RandomRouter",
    "RoundRobinRouter",
    "Team",
    "TeamTRConfig",
    "TeamTRTrainer",
    "Transcript",
    "load_team",
    "plan",
]
