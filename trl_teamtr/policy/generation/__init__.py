"""Agents that speak through vLLM servers."""

from .fleet import Fleet, FleetSettings


__all__ = [
    "Fleet",
    "FleetSettings",
]
