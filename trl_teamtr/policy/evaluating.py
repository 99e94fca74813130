"""The mode in which models are asked, rather than trained."""

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn


@contextlib.contextmanager
def evaluating(models: Sequence[nn.Module]) -> Iterator[None]:
    """Within it all `models` are in evaluation mode; after it each is in the mode that it was in."""
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for model, training in zip(models, modes, strict=True):
            model.train(training)
