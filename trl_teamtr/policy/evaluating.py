"""Evaluation mode for several models."""

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn


@contextlib.contextmanager
def evaluating(models: Sequence[nn.Module]) -> Iterator[None]:
    """Context in which all `models` are in evaluation mode; each returns to its previous mode."""
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for model, training in zip(models, modes, strict=True):
            model.train(training)
