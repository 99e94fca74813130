"""Agents that speak through vLLM: through its servers, or through engines in this process."""

from .choosing import make_fleet
from .fleet import Fleet, FleetSettings


__all__ = [
    "Fleet",
    "FleetSettings",
    "make_fleet",
]
