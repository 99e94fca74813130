"""
A program in a process of its own, which can compute and nothing else.

`unshare` of util-linux gives it namespaces without a network, without other processes and without shared memory. The worker
(`worker.py`) then makes an empty, read-only directory its root, gives up its user and its privileges, and sets limits that cannot
be raised again: memory, processor time, no new process or thread, no new file descriptor (and so no file and no socket). Before it
runs the program it tries what it must not be able to do; where anything of it succeeds, nothing is run.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil


WORKER = Path(__file__).with_name("worker.py")
_NAMESPACES = ["--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child"]
_START_SECONDS, _POLL_SECONDS = 60.0, 0.005
_TOLD = 300  # characters of a fault that are reported


class IsolationError(RuntimeError):
    """A program was not run, since it could not be isolated."""


@dataclass(frozen=True)
class Limits:
    """
    What a program may use.

    Args:
        seconds (`float`): Seconds until it is killed.
        memory_mib (`int`): Address space, the interpreter's own included.
        output_kib (`int`): What it may write to its standard output, its result included.
    """

    seconds: float = 10.0
    memory_mib: int = 512
    output_kib: int = 256

    def __post_init__(self):
        if self.seconds <= 0 or self.memory_mib < 64 or self.output_kib < 1:
            raise ValueError(f"Limits are positive, with at least 64 MiB of memory, got {self}.")


@dataclass(frozen=True)
class Outcome:
    """
    What became of a program: a result, or the `fault` for which it has none.

    Args:
        result: What it left in its variable `result`, through JSON.
        fault (`str`, *optional*): An exception, a limit or a signal; `None` if it ended well.
    """

    result: Any = None
    fault: str | None = None


def run_isolated(program: str, data: Any, limits: Limits | None = None) -> Outcome:
    """
    Run `program`, which finds `data` in the variable `data` and leaves what it found in `result`.

    Args:
        program (`str`): Python code. Of the standard library it may import what `worker.py` lists.
        data: Anything that JSON can hold.
        limits ([`Limits`], *optional*): What it may use.

    Raises:
        `IsolationError`: If it could not be isolated; it was not run then.
    """
    limits = limits or Limits()
    command = _command()
    with tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        request.write(json.dumps({"program": program, "data": data, "limits": asdict(limits)}).encode())
        request.seek(0)
        # Files, not pipes: what is written is bounded by a limit, and nobody has to read it meanwhile
        process = subprocess.Popen(command, stdin=request, stdout=output, stderr=errors, cwd="/", env={})
        try:
            _wait_for_start(process, output.fileno())
            status: int | None = process.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
        output.seek(0)
        errors.seek(0)
        return _read(status, output.read(), errors.read().decode(errors="replace"), limits)


def _command() -> list[str]:
    """The command line of the worker."""
    unshare = shutil.which("unshare")
    if sys.platform != "linux" or unshare is None:
        raise IsolationError(
            "Checkers of a dataset run in Linux namespaces alone, which `unshare` (util-linux) makes, and it was not found. Score "
            "this task on Linux with util-linux installed."
        )
    # Root needs no user namespace, in which it would still count as root, for whom the number of processes has no limit
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return [unshare, *user, *_NAMESPACES, _interpreter(), "-I", "-S", "-B", str(WORKER)]


def _interpreter() -> str:
    """The interpreter without the packages of a virtual environment."""
    return os.path.realpath(sys.executable)


def _wait_for_start(process: subprocess.Popen, output: int):
    """Wait until the worker says that it is isolated: the time that a busy machine takes for it is not the program's."""
    given_up = time.monotonic() + _START_SECONDS
    while process.poll() is None and not os.fstat(output).st_size and time.monotonic() < given_up:
        time.sleep(_POLL_SECONDS)


def _end(process: subprocess.Popen):
    """Kill what is left: first the worker, with which its namespace ends, then `unshare`."""
    if process.poll() is None:
        try:
            children = psutil.Process(process.pid).children()
        except psutil.NoSuchProcess:  # it ended just now
            children = []
        for child in children:
            child.kill()
        process.kill()
    process.wait()


def _read(status: int | None, output: bytes, errors: str, limits: Limits) -> Outcome:
    """The outcome of a worker that ended with `status`, `None` if it was killed for its time."""
    lines = output.decode(errors="replace").splitlines()
    if not lines or lines[0] != "isolated":
        if status is None:
            raise IsolationError(f"The isolated process did not start within {_START_SECONDS} seconds.")
        raise IsolationError(
            "Checkers of a dataset run isolated or not at all, and this machine does not let them be: "
            f"{(lines or [errors.strip()[-_TOLD:]])[0] or f'exit status {status}'}. Run as root with CAP_SYS_ADMIN, or as a user "
            "who may make user namespaces (sysctl `kernel.unprivileged_userns_clone`, `kernel.apparmor_restrict_unprivileged_userns`)."
        )
    if status is None:
        return Outcome(fault=f"it did not end within {limits.seconds} seconds")
    try:
        answer = json.loads(lines[-1])
        return Outcome(answer["result"], answer["fault"])
    except (ValueError, TypeError, KeyError):
        return Outcome(fault=f"it ended with status {status} and without a result")
