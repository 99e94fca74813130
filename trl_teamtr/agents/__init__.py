"""Specification of a team's members, and their models."""

from .agent import Agent
from .models import load_models
from .resolving import resolve_agents, resolve_team
from .settings import SamplingSettings, SpeakingSettings
from .team_file import load_team


__all__ = [
    "Agent",
    "SamplingSettings",
    "SpeakingSettings",
    "load_models",
    "load_team",
    "resolve_agents",
    "resolve_team",
]
