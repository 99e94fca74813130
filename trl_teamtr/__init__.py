"""Trust-region fine-tuning for teams of LLM agents, on top of Hugging Face TRL."""

from .agent import Agent
from .router import RandomRouter, RoundRobinRouter
from .team import load_team
from .teamtr_config import TeamTRConfig
from .teamtr_trainer import TeamTRTrainer
from .transcript import Message, Transcript


__version__ = "0.1.0"

__all__ = [
    "Agent",
    "Message",
    "RandomRouter",
    "RoundRobinRouter",
    "TeamTRConfig",
    "TeamTRTrainer",
    "Transcript",
    "load_team",
]
