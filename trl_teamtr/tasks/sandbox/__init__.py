"""Run code that comes with a dataset: alone, within limits, or not at all."""

from .sandbox import IsolationError, Limits, Outcome, run_isolated


__all__ = ["IsolationError", "Limits", "Outcome", "run_isolated"]
