"""A small file in memory that a run and its killer share: the phase of the run, and how often it has been in each."""

import contextlib
import time
from pathlib import Path

import numpy as np


SAVING = ("writing", "swapping", "tidying")  # before, between and after the renames that put a checkpoint in its place
OUTSIDE = ("starting", "other")
PHASES = ("rollout", "inner_step", "backtracking", "evaluation", *SAVING, *OUTSIDE)

SWAPPING_SECONDS = 0.005  # as long as runs that are to be killed wait between the two renames


class Board:
    """
    Written by the run, read by its killer, without locks. It outlives the process that is killed, and so holds the
    phase in which that was.

    Args:
        path (`Path`, *optional*): The file; without one nobody else can read the board.
    """

    def __init__(self, path: Path | None = None):
        size = 2 + 2 * len(PHASES)
        if path is None:
            self._cells = np.zeros(size)
        else:
            self._cells = np.memmap(path, dtype=np.float64, mode="r+" if path.exists() else "w+", shape=(size,))
        self._entries, self._seconds = self._cells[2 : 2 + len(PHASES)], self._cells[2 + len(PHASES) :]
        self._since = time.monotonic()

    @property
    def phase(self) -> str:
        return PHASES[int(self._cells[0])]

    @property
    def update(self) -> int:
        """Number of the update that is in progress, counted from 1."""
        return int(self._cells[1])

    @update.setter
    def update(self, number: int):
        self._cells[1] = number

    def entries(self, phase: str) -> int:
        return int(self._entries[PHASES.index(phase)])

    def mean_seconds(self, phase: str) -> float:
        """How long the phase has lasted on average."""
        return float(self._seconds[PHASES.index(phase)]) / max(self.entries(phase), 1)

    def switch(self, phase: str):
        now, then = time.monotonic(), int(self._cells[0])
        self._seconds[then] += now - self._since
        self._since = now
        self._cells[0] = PHASES.index(phase)
        self._entries[PHASES.index(phase)] += 1  # last, since the killer waits for it

    @contextlib.contextmanager
    def within(self, phase: str):
        """The outermost phase counts: the rollouts of an evaluation are evaluation."""
        if self.phase not in OUTSIDE:
            yield
            return
        self.switch(phase)
        try:
            yield
        finally:
            self.switch("other")
