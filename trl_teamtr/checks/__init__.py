"""Checks of the input before anything is generated."""

from .preflight import check_columns, check_router, check_speakers
from .sampling_checks import check_sampling, choose_resampling


__all__ = [
    "check_columns",
    "check_router",
    "check_sampling",
    "check_speakers",
    "choose_resampling",
]
