"""Models that generate and score messages."""

from .backend import Backend, PlainBackend
from .evaluating import evaluating
from .making import make_speakers
from .policy import Policy
from .residency import Residency
from .speaker import Speaker


__all__ = [
    "Backend",
    "PlainBackend",
    "Policy",
    "Residency",
    "Speaker",
    "evaluating",
    "make_speakers",
]
