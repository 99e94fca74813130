"""How long the phases of an update take: `seconds/rollouts`, `seconds/scoring`, `seconds/update`."""

import contextlib
import time
from collections.abc import Callable, Iterator


PHASES = ("rollouts", "scoring", "update")


class PhaseTimes:
    """
    Logs the seconds that a phase has taken on this process.

    Args:
        log (`Callable[[str, float], None]`): Logs a metric.
    """

    def __init__(self, log: Callable[[str, float], None]):
        self._log = log

    @contextlib.contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Context of a phase, one of `PHASES`. One that an error ends is not logged."""
        start = time.perf_counter()
        yield
        self._log(f"seconds/{phase}", time.perf_counter() - start)
