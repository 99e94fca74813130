"""Random states that a failure leaves as they were, so that a run which is resumed draws what an uninterrupted one would."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def kept_if_it_fails(error: type[Exception], device: torch.device) -> Iterator[None]:
    """
    Context after which, if `error` has ended it, all generators are as before.

    Args:
        error (`type[Exception]`): What may end it.
        device ([`~torch.device`]): That of the run.
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    except error:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if gpu is not None:
            torch.cuda.set_rng_state(gpu, device)
        raise
