"""How far an update may go: its KL, its radius, and backtracking."""

from .engines import PlainEngine, ZeroEngine
from .monitor import split_off_monitor
from .policy_kl import exact_token_kl
from .snapshot import Snapshot
from .turn_radii import TurnRadii
from .update import KLController, UpdateReport, backtrack


__all__ = [
    "KLController",
    "PlainEngine",
    "Snapshot",
    "TurnRadii",
    "UpdateReport",
    "ZeroEngine",
    "backtrack",
    "exact_token_kl",
    "split_off_monitor",
]
