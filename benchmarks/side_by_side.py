"""Runs commands, so many at a time."""

import subprocess
from collections.abc import Iterable
from pathlib import Path


def run_side_by_side(commands: Iterable[list[str]], jobs: int, output: Path):
    """
    Run all `commands`, `jobs` processes at a time.

    Args:
        commands (`Iterable[list[str]]`): The commands.
        jobs (`int`): Processes at a time.
        output (`Path`): File to which they write.

    Raises:
        `SystemExit`: If one of them fails, once those beside it have ended.
    """
    waiting, running, failed = list(commands), [], []
    while running or (waiting and not failed):
        while waiting and len(running) < jobs and not failed:
            with open(output, "a") as file:
                running.append(subprocess.Popen(waiting.pop(0), stdout=file, stderr=file))
        running[0].wait()
        for process in [process for process in running if process.poll() is not None]:
            running.remove(process)
            failed += [process.args] if process.returncode else []
    if failed:
        raise SystemExit(f"Failed; see {output}: {failed}")
