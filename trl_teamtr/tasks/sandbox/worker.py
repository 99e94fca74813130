"""
The isolated process of `sandbox.py`, which starts this file with the bare interpreter in namespaces of its own. It reads a program
from its standard input, locks itself in, and writes `isolated`, then one line of JSON: the result, or the fault.
"""

# ruff: noqa: F401
# What a program may import is imported here, since there are no files afterwards
import ast
import bisect
import calendar
import collections
import copy
import ctypes
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import heapq
import itertools
import json
import math
import operator
import os
import random
import re
import resource
import signal
import socket
import statistics
import string
import sys
import threading
import time
import traceback
import typing


NOBODY = 65534
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CAPABILITY_VERSION = 0x20080522


def _must(status: int, what: str):
    if status != 0:
        raise OSError(ctypes.get_errno(), f"{what} failed")


def leave_files():
    """Make an empty, read-only directory the root. `/proc` is where it is put: it always exists, and is not needed."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_ulong(_MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _must(libc.mount(b"none", b"/proc", b"tmpfs", flags, b"size=4k,mode=555"), "mount")
    os.chroot("/proc")
    os.chdir("/")


def leave_privileges():
    """Become nobody, if this is the true root, and give up all capabilities."""
    libc = ctypes.CDLL(None, use_errno=True)
    if TRUE_ROOT:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        # Forgotten with a change of user
        _must(libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0), "prctl")
    _must(libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0), "prctl")
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    _must(libc.capset(header, none), "capset")


def limit(seconds: float, memory_mib: int, output_kib: int):
    """Set the limits, which only a privileged process could raise again."""
    # Beyond what starting took, and later than the one who waits kills it, and says why
    processor = math.ceil(seconds + time.process_time()) + 1
    for what, size in (
        (resource.RLIMIT_AS, memory_mib << 20),
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_FSIZE, output_kib << 10),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(what, (size, size))


def open_doors() -> list[str]:
    """What is possible here that must not be."""

    def fork():
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    tries = {
        "start a process": fork,
        "start a thread": lambda: threading.Thread(target=int).start(),
        "open a socket": socket.socket,
        "open a file": lambda: os.open("/", os.O_RDONLY),
        "make a directory": lambda: os.mkdir("/made"),
        "change its root": lambda: os.chroot("/"),
        "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_NPROC, (100, 100)),
    }
    found = []
    for what, attempt in tries.items():
        try:
            attempt()
        except (OSError, ValueError, RuntimeError):  # as it should be; a thread's is a RuntimeError
            continue
        found.append(what)
    return found + ["see files"] * bool(os.path.exists("/proc") or os.path.exists("/usr"))


class _Sink:
    """Takes what a program prints."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self):
        pass


def execute(program: str, data) -> dict:
    """The result of `program`, or its fault."""
    namespace = {"__name__": "checker", "data": data}
    try:
        exec(compile(program, "checker", "exec"), namespace)
        result = namespace["result"]
        json.dumps(result)
        return {"result": result, "fault": None}
    except BaseException as error:  # also SystemExit and KeyboardInterrupt: whatever ends a checker is its fault
        last = traceback.format_exception_only(type(error), error)[-1].strip()
        return {"result": None, "fault": last[:300]}


def say(line: str):
    """Write a line; the first is `isolated`, or why this is not."""
    os.write(1, line.encode() + b"\n")


def main():
    request = json.loads(sys.stdin.buffer.read())
    try:
        leave_files()
        leave_privileges()
        limit(**request["limits"])
    except OSError as error:
        say(str(error))
        return
    doors = open_doors()
    if doors:
        say(f"the process could still {', '.join(doors)}")
        return
    say("isolated")
    sys.stdout = sys.stderr = _Sink()
    say(json.dumps(execute(request["program"], request["data"])))


if __name__ == "__main__":
    # A user namespace maps its root to a user outside; the true root is mapped to itself with all others
    TRUE_ROOT = open("/proc/self/uid_map").read().split() == ["0", "0", "4294967295"]
    main()
