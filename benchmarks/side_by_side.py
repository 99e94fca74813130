"""Runs commands, so many at a time."""

import subprocess
import sys
from collections.abc import Callable, Iterable
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


def run_script(
    script: str, arguments: Iterable[list[str]], jobs: int, output: Path, here: Callable[[list[str]], None] | None
):
    """
    Run `script` once with each list of `arguments`.

    Args:
        script (`str`): The file.
        arguments (`Iterable[list[str]]`): Its command lines.
        jobs (`int`): Processes at a time.
        output (`Path`): File to which they write.
        here (`Callable`, *optional*): Runs the script with a command line in this process; no others are started then.
    """
    if here is None:
        run_side_by_side([[sys.executable, "-W", "ignore", script, *each] for each in arguments], jobs, output)
    else:
        for each in arguments:
            here(each)
