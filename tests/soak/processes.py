"""New processes for attempts at a run: a fork of a server that holds the libraries, or an `accelerate launch`."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from launching import derive_config, environment, launch_command


DEADLINE = 600  # seconds that an attempt may take at all


def _run(run: Path, stages: int, resume: str | bool | None):
    from attempts import attempt  # loaded by the server already

    log = os.open(run / "log.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    attempt(run, stages, resume)


class Single:
    """
    One process, which starts at once since the libraries are loaded by the server that it is a fork of.

    Args:
        run (`Path`): Folder of the run.
        stages (`int`): Its length.
        resume (`str` or `bool`, *optional*): For `train(resume_from_checkpoint=...)`.
    """

    def __init__(self, run: Path, stages: int, resume: str | bool | None):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["attempts"])
        self._process = context.Process(target=_run, args=(run, stages, resume), daemon=True)
        self._process.start()

    def running(self) -> bool:
        return self._process.is_alive()

    def wait(self) -> int:
        self._process.join(DEADLINE)
        return self._process.exitcode

    def kill(self, draw: random.Random) -> bool:
        """SIGKILL; returns whether it came before the end."""
        os.kill(self._process.pid, signal.SIGKILL)  # not yet reaped, so that the number is not another process's
        return self.wait() == -signal.SIGKILL

    def end(self):
        if self.running():
            self._process.kill()
        self._process.join()


class Launch:
    """Two processes under ZeRO-2, with a launcher. The arguments are those of [`Single`]."""

    def __init__(self, run: Path, stages: int, resume: str | bool | None):
        self._run, self._models = run, run.parent / "models"
        config = derive_config("zero2", run)
        arguments = (run, stages, json.dumps(resume), self._models)
        for path in run.glob("pid-*"):
            path.unlink()
        with (run / "log.txt").open("a") as log:
            self._launcher = subprocess.Popen(
                launch_command(config, Path(__file__).parent / "attempts.py", *arguments),
                env=environment(PYTHONPATH=os.environ["PYTHONPATH"]),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.killed_rank: int | None = None
        self.seconds_to_end: float | None = None

    def running(self) -> bool:
        return self._launcher.poll() is None

    def wait(self) -> int:
        return self._launcher.wait(DEADLINE)

    def kill(self, draw: random.Random) -> bool:
        """SIGKILL for one of the processes that train; the launcher then has a minute to end by itself, with all."""
        pids = self._pids()
        if not self.running() or len(pids) < 2:
            return False
        self.killed_rank, began = draw.randrange(len(pids)), time.monotonic()
        os.kill(pids[self.killed_rank], signal.SIGKILL)
        code = self._launcher.wait(60)
        self.seconds_to_end = time.monotonic() - began
        assert not any(map(_is_running, pids)), "the launcher has ended, but not all of its processes"
        return code != 0

    def _pids(self) -> list[int]:
        return [int(path.read_text()) for path in sorted(self._run.glob("pid-*"))]

    def end(self):
        if self.running():
            self._launcher.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._launcher.wait(60)
        self._launcher.kill()
        self._launcher.wait()


def _is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"  # a zombie has ended


def prepare(folder: Path, processes: int):
    """What all runs in `folder` need."""
    if processes == 2:
        script = "import sys, teams; from pathlib import Path; teams.save_models(Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", script, str(folder / "models")], check=True, capture_output=True)
