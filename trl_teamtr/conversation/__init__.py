"""Transcripts, turn taking, and each agent's view of a rollout. Uses tokenizers, no models."""

from .rendering import ChatRenderer, PlainRenderer
from .router import RandomRouter, RoundRobinRouter, Router
from .rules import RolloutRules, TurnTaking, make_rules
from .transcript import Message, Transcript
from .view import View, stack_views


__all__ = [
    "ChatRenderer",
    "Message",
    "PlainRenderer",
    "RandomRouter",
    "RolloutRules",
    "RoundRobinRouter",
    "Router",
    "Transcript",
    "TurnTaking",
    "View",
    "make_rules",
    "stack_views",
]
