"""The turn loop, and which rollouts an update gets."""

from .drafts import Drafts
from .resampling import Resampler
from .rollouts import Rollouts, replay
from .stage_weights import ScoredView, StageWeights
from .turn_loop import TurnLoop


__all__ = [
    "Drafts",
    "Resampler",
    "Rollouts",
    "ScoredView",
    "StageWeights",
    "TurnLoop",
    "replay",
]
