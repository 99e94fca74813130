"""
Plug-and-play: members of a team are replaced, added and removed, with alignment to those who leave and a report of what it did.
"""

from .alignment_config import AlignmentConfig
from .measuring import SwapMeasure
from .replacing import add_member, remove_member, replace_member
from .report import ReplacementReport


__all__ = [
    "AlignmentConfig",
    "ReplacementReport",
    "SwapMeasure",
    "add_member",
    "remove_member",
    "replace_member",
]
