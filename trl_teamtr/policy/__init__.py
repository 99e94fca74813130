"""Models that generate and score messages."""

from .backend import Backend, PlainBackend
from .evaluating import evaluating
from .making import make_speakers
from .participant import Participant
from .policy import Policy
from .remote import RemoteMemberError, RemoteSpeaker
from .residency import Residency
from .speaker import Speaker


__all__ = [
    "Backend",
    "Participant",
    "PlainBackend",
    "Policy",
    "RemoteMemberError",
    "RemoteSpeaker",
    "Residency",
    "Speaker",
    "evaluating",
    "make_speakers",
]
