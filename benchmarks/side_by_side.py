"""Runs commands, so many at a time."""

import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
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
    failed = []

    def run(command: list[str]):
        with open(output, "a") as file:
            if not failed and subprocess.run(command, stdout=file, stderr=file, check=False).returncode:
                failed.append(command)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, commands))
    if failed:
        raise SystemExit(f"Failed; see {output}: {failed}")
