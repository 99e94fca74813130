"""What a run will take, memory and time, before it is started and without its weights."""

from .launches import Launch
from .memory import Phase
from .planner import Plan, plan


__all__ = ["Launch", "Phase", "Plan", "plan"]
