"""What takes a third of the time of tests that train, and nothing that they check depends on; also in launched processes."""

import functools
import gc
import importlib.metadata
import os


def take():
    """
    accelerate reads PEFT's metadata at each forward pass, and model cards and team files read versions: once is enough. A checkpoint
    does not wait for the disk. And accelerate collects garbage after each training: not, each time, among what was imported until now,
    for half a second.
    """
    importlib.metadata.metadata = functools.cache(importlib.metadata.metadata)
    importlib.metadata.version = functools.cache(importlib.metadata.version)
    os.fsync = lambda descriptor: None
    gc.collect()
    gc.freeze()
