"""Programs that come with a dataset compute, and can do nothing else, whoever runs the tests. Where they could, none is run."""

import os
import re
import resource
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest

from trl_teamtr.tasks.sandbox import IsolationError, Limits, Outcome, run_isolated, sandbox


BRIEF = Limits(seconds=1)
MOST_PROCESSES = 100  # at which a program of these tests stops by itself

FORKS = f"""
import os
result = 0
while result < {MOST_PROCESSES}:
    try:
        child = os.fork()
    except OSError:
        break
    if child == 0:
        os._exit(0)
    result += 1
"""
THREADS = f"""
import threading
result = 0
while result < {MOST_PROCESSES}:
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        break
    result += 1
"""


def test_a_program_finds_data_and_leaves_a_result():
    assert run_isolated("result = {'sum': sum(data), 'text': 'é'}", [1, 2.5]) == Outcome({"sum": 3.5, "text": "é"})


def test_what_it_prints_is_not_its_result():
    assert run_isolated("print('isolated'); print({'result': 9}); result = 1", None) == Outcome(1)


@pytest.mark.parametrize("program", [FORKS, THREADS], ids=["processes", "threads"])
def test_no_process_and_no_thread_is_started(program):
    assert run_isolated(program, None, BRIEF) == Outcome(0)


@pytest.mark.parametrize(
    "program, fault",
    [
        ("while True: pass", "did not end within 1 seconds"),
        ("import time; time.sleep(60)", "did not end within 1 seconds"),
        ("import signal, time\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\ntime.sleep(60)", "did not end"),
        ("x = bytearray(4 << 30)", "MemoryError"),
        ("x = [0]\nwhile True: x = x * 2", "MemoryError|did not end"),
        ("import mmap", "OSError|ModuleNotFoundError|ImportError"),
        ("open('/tmp/written', 'w')", "OSError"),
        ("import os; os.mkdir('/written')", "Read-only file system"),
        ("import os; os.unlink('/etc/passwd')", "No such file"),
        ("import os; os.chroot('/')", "Operation not permitted"),
        ("import os\nwhile True: os.write(1, b'x' * 4096)", "without a result"),
        ("import socket; socket.socket().connect(('127.0.0.1', 80))", "OSError"),
        ("import socket; socket.socket(socket.AF_UNIX).connect('/run/docker.sock')", "OSError"),
        ("import subprocess", "OSError|ModuleNotFoundError|ImportError"),
        ("import os; os.execv('/bin/sh', ['sh'])", "No such file"),
        ("import os; os.setuid(0)", "Operation not permitted|without a result|KeyError"),
        ("import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "not allowed"),
        ("import os; os._exit(0)", "status 0 and without a result"),
        ("raise SystemExit('enough')", "SystemExit: enough"),
        ("def f(): f()\nf()", "RecursionError"),
        ("1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
        ("x = 1", "KeyError: 'result'"),
        ("result = {1}", "TypeError"),
        ("result = 'x' * 10 ** 6", "without a result|OSError"),
    ],
)
def test_a_hostile_program_has_a_fault_instead(program, fault):
    outcome = run_isolated(program, None, BRIEF)
    assert outcome.result is None and re.search(fault, str(outcome.fault))
    assert not os.path.exists("/tmp/written")


def test_it_reaches_no_server_of_this_machine():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)\nresult = 1"
        assert run_isolated(program, None, BRIEF).result is None


def test_it_sees_no_process_and_is_nobody():
    outcome = run_isolated("import os; result = [os.getpid(), os.path.exists('/proc/1'), os.getuid()]", None)
    user = 65534 if os.geteuid() == 0 else 0  # the root of its own namespace, a user without rights outside
    assert outcome.result == [1, False, user]


def test_nothing_is_left_of_what_was_killed():
    run_isolated("import time; time.sleep(60)", None, BRIEF)
    assert not [child for child in psutil.Process().children(recursive=True) if "worker.py" in str(child.cmdline())]


def test_limits_of_this_process_stay_as_they_are():
    before = [resource.getrlimit(what) for what in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE)]
    run_isolated("result = 1", None)
    assert [resource.getrlimit(what) for what in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE)] == before


def test_without_unshare_nothing_is_run(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(IsolationError, match="`unshare`"):
        run_isolated("result = 1", None)


def test_without_namespaces_nothing_is_run(monkeypatch):
    """As in a container that forbids them: the worker starts where it is."""
    monkeypatch.setattr(sandbox, "_NAMESPACES", ["--fork"])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sandbox, "_interpreter", lambda: "/nonexistent/python")
    with pytest.raises(IsolationError, match="run isolated or not at all"):
        run_isolated("result = 1", None)


@pytest.mark.skipif(os.geteuid() != 0, reason="the true root alone")
def test_where_processes_have_no_limit_nothing_is_run(monkeypatch):
    """Root in a user namespace of its own is still root for the kernel, which does not count its processes."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(IsolationError, match="could still start a process"):
        run_isolated("result = 1", None)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is asked of root alone")
def test_a_user_without_rights_isolates_as_well():
    """With a bare interpreter that this user may read, and the two files by themselves."""
    found = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if found is None:
        pytest.skip("there is no interpreter of the system")
    with tempfile.TemporaryDirectory() as parent:  # pytest's own folders are closed to others
        folder = Path(parent)
        shutil.copytree(sandbox.WORKER.parent, folder / "sandbox_alone")
        (folder / "psutil.py").write_text(
            "class NoSuchProcess(Exception): pass\n"
            "class Process:\n    def __init__(self, pid): pass\n    def children(self): return []\n"
        )
        program = (
            f"import sys; sys.path.insert(0, {str(folder)!r})\nfrom sandbox_alone import *\n"
            f'print(run_isolated({FORKS!r}, None), run_isolated(\'open("/tmp/x", "w")\', None).fault)'
        )
        for path in (folder, *folder.rglob("*")):
            path.chmod(path.stat().st_mode | 0o055)
        run = subprocess.run(
            [found, "-c", program], user=65534, group=65534, extra_groups=[], capture_output=True, text=True
        )
    assert run.stdout.startswith("Outcome(result=0, fault=None) OSError"), run.stderr


def test_limits_are_checked():
    with pytest.raises(ValueError, match="at least 64 MiB"):
        Limits(memory_mib=1)
