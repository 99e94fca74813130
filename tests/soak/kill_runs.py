"""
Kills runs by SIGKILL at random instants, resumes them in new processes, and compares them with one never killed.

    python tests/soak/kill_runs.py --kills 50                  # one process; a few minutes on two cores
    python tests/soak/kill_runs.py --kills 10 --processes 2    # ZeRO-2 on two processes; SIGKILL for one of the two
    python tests/soak/kill_runs.py --kills 5 --quick           # under a minute

Each kill is aimed at the phase of the run that was hit least: rollouts, inner steps, backtracking, evaluation, saving,
or the start of a process; at one of its first occurrences after the resume, and at a random instant within it. A kill
that comes too late falls elsewhere, so it goes on until each phase has its share, at most until twice as many kills. When a run gets to
its end, the next begins. To see a checkpoint replaced by one of the same number, some attempts go on from the last
but one.

Prints a table and, last, one JSON object. The exit status is 1 if any of the runs differs in anything from the one that
was never killed: weights, optimizers, β, metrics (timings aside), prompts, transcripts, or a file of its last checkpoint.
"""

import argparse
import json
import os
import platform
import random
import shlex
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


HERE = Path(__file__).resolve().parent
# By the environment, since the processes that are started need it too
PATHS = [str(path) for path in (HERE, HERE.parent, HERE.parent / "distributed", HERE.parents[1])]
os.environ["PYTHONPATH"] = os.pathsep.join(PATHS)
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CI": "1", "PYTHONWARNINGS": "ignore"}
sys.path[:0] = PATHS

import torch  # noqa: E402
from board import PHASES, SAVING, SWAPPING_SECONDS, Board  # noqa: E402
from comparing import find_differences, is_whole, last_checkpoints  # noqa: E402
from processes import DEADLINE, Launch, Single, prepare  # noqa: E402


AIMS = ("rollout", "inner_step", "backtracking", "evaluation", "saving")

ONCE = ("starting", "swapping")  # phases that an attempt has once at most


@dataclass
class Kill:
    """Where a kill was aimed at, where it fell, and what it left in the folder of the run."""

    aim: str
    phase: str
    update: int
    left: tuple[str, ...]
    seconds_to_end: float | None

    @property
    def group(self) -> str:
        return "saving" if self.phase in SAVING else self.phase


class Soak:
    """
    The runs, and the kills so far.

    Args:
        folder (`Path`): Where the runs go.
        options (`argparse.Namespace`): The command line.
    """

    def __init__(self, folder: Path, options: argparse.Namespace):
        self.folder, self.processes, self.quick = folder, options.processes, options.quick
        self.goal = options.kills
        self.share = max(1, options.kills // 6)  # kills that each phase gets at least
        self.stages = (6 if options.quick else 24) if options.processes == 1 else 8
        self.draw = random.Random(options.seed)
        self.kills: list[Kill] = []
        self.attempts = 0

    def start(self, run: Path, resume: str | bool | None) -> Single | Launch:
        self.attempts += 1
        (run / "board").unlink(missing_ok=True)
        self.board = Board(run / "board")
        return (Single if self.processes == 1 else Launch)(run, self.stages, resume)

    def never_killed(self) -> Path:
        """The run to compare with; its board tells how long the phases last."""
        run = self.folder / "reference"
        run.mkdir()
        attempt = self.start(run, None)
        try:
            self.finish(run, attempt.wait())
        finally:
            attempt.end()
        self.usual = self.board
        return run

    def killed(self, run: Path):
        """One run, from its start to its end."""
        run.mkdir()
        while not self.is_finished(run):
            aim, resume = self.choose(run)
            attempt = self.start(run, resume)
            try:
                if aim is not None and self.wait_for(aim, attempt):
                    self.kill(run, aim, attempt)
                else:
                    self.finish(run, attempt.wait())
            finally:
                attempt.end()

    def wants_more(self) -> bool:
        hits = self.count()
        behind = len(self.kills) < 2 * self.goal and any(hits[phase] < self.share for phase in AIMS)
        return len(self.kills) < self.goal or behind

    def count(self) -> Counter:
        return Counter(kill.group for kill in self.kills)

    def choose_aim(self, replaceable: bool) -> str:
        """The phase that is furthest behind; starts are to have half as many kills as the others."""
        hits = self.count() + Counter({"starting": self.count()["starting"]})
        candidates = AIMS if self.quick else (*AIMS, "starting")
        phase = min(candidates, key=lambda name: (hits[name] + (name == "starting"), self.draw.random()))
        if phase != "saving":
            return phase
        parts = Counter(kill.phase for kill in self.kills)
        possible = [name for name in SAVING if replaceable or name != "swapping"]
        return min(possible, key=lambda name: (parts[name], self.draw.random()))

    def choose(self, run: Path) -> tuple[str | None, str | bool | None]:
        """What to aim at, if at anything, and where to go on: mostly from the last checkpoint."""
        checkpoints = last_checkpoints(run)
        older = [str(checkpoint) for checkpoint in checkpoints[1:] if is_whole(checkpoint)]
        aim = self.choose_aim(replaceable=bool(older)) if self.wants_more() else None
        if aim == "swapping":
            return aim, older[0]
        return aim, True if checkpoints else None

    def wait_for(self, aim: str, attempt: Single | Launch) -> bool:
        """Wait for a random instant within one of the next occurrences of `aim`; false if the run ends before."""
        per_update = self.usual.entries(aim) / self.usual.update
        last = 1 if aim in ONCE else max(1, round((1 if self.quick else 3) * per_update))
        occurrence = self.draw.randint(1, last)
        # The reference has replaced no checkpoint
        usual = self.usual.mean_seconds(aim) or SWAPPING_SECONDS
        instant, seen, deadline = None, 0, time.monotonic() + DEADLINE
        while attempt.running():
            now, entries = time.monotonic(), self.board.entries(aim)
            assert now < deadline, f"no {aim} in {DEADLINE} s"
            if self.board.phase != aim or entries != seen:
                if aim in ONCE and instant is not None:
                    return True  # too late
                instant, seen = None, entries  # it was shorter than usual: the next one, then
            if instant is None and self.board.phase == aim and entries >= occurrence:
                instant = now + self.draw.random() * usual
            if instant is not None and now >= instant:
                return True
            time.sleep(1e-4)
        return False

    def kill(self, run: Path, aim: str, attempt: Single | Launch):
        phase, update = self.board.phase, self.board.update
        if not attempt.kill(self.draw):
            return
        if self.processes == 1:
            phase, update = self.board.phase, self.board.update  # to the instant: nobody else writes them
        checkpoints = last_checkpoints(run)
        left = {path.name.rstrip("-0123456789") for path in (run / "team").glob("tmp-*checkpoint-*")}
        left |= {"partly removed checkpoint" for checkpoint in checkpoints if not is_whole(checkpoint)}
        seconds, process = None, ""
        if isinstance(attempt, Launch):
            seconds, process = attempt.seconds_to_end, f"process {attempt.killed_rank} "
        self.kills.append(Kill(aim, phase, update, tuple(sorted(left)), seconds))
        print(
            f"kill {len(self.kills):2}: {process}at update {update:2}, aimed at {aim:12} hit {phase:12} "
            f"{', '.join(sorted(left))}".rstrip(),
            flush=True,
        )

    def is_finished(self, run: Path) -> bool:
        return all((run / f"result-{rank}.pt").exists() for rank in range(self.processes))

    def finish(self, run: Path, code: int):
        if code != 0 or not self.is_finished(run):
            raise RuntimeError(f"an attempt ended with {code}:\n{(run / 'log.txt').read_text()[-6000:]}")

    def run_all(self) -> list[str]:
        """Kill until there are enough kills; returns the differences between the runs and the one never killed."""
        reference, found, number = self.never_killed(), [], 0
        print(f"never killed: {self.usual.update} updates", flush=True)
        while self.wants_more() or number == 0:
            number += 1
            run, before = self.folder / f"run-{number}", len(self.kills)
            self.killed(run)
            differences = find_differences(run, reference, self.processes)
            found += [f"run {number}: {difference}" for difference in differences]
            verdict = "differs" if differences else "is identical"
            print(f"run {number}, killed {len(self.kills) - before} times, {verdict}", flush=True)
        self.finished = number
        return found


def print_header():
    """The command, the versions and the machine."""
    versions = [f"{name} {_version(name)}" for name in ("torch", "transformers", "trl", "deepspeed")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpus = f"{torch.cuda.device_count()} GPU" if torch.cuda.is_available() else "no GPU"
    print("$ python tests/soak/kill_runs.py", shlex.join(sys.argv[1:]))
    print(", ".join([*versions, f"Python {platform.python_version()}"]))
    print(f"{os.cpu_count()} cores, {memory:.0f} GiB, {gpus}", flush=True)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def print_table(soak: Soak):
    phases, usual = Counter(kill.phase for kill in soak.kills), soak.usual
    print("\nphase          kills   ms each   per update")
    for phase in PHASES:
        times = usual.entries(phase)
        print(f"{phase:12} {phases[phase]:7} {1000 * usual.mean_seconds(phase):9.1f} {times / usual.update:12.1f}")
    left = Counter(what for kill in soak.kills for what in kill.left)
    print("\nwhat the kills left behind:", ", ".join(f"{name} {count} times" for name, count in sorted(left.items())))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2))
    parser.add_argument("--quick", action="store_true", help="shorter runs, and no kills at the start of a process")
    options = parser.parse_args()
    print_header()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="teamtr-soak-") as folder:
        prepare(Path(folder), options.processes)
        soak = Soak(Path(folder), options)
        differences = soak.run_all()
    print_table(soak)
    for difference in differences:
        print("DIFFERENT:", difference)
    hits = soak.count()
    result = {
        "kills": len(soak.kills),
        "by_phase": {phase: hits[phase] for phase in (*AIMS, "starting", "other")},
        "attempts": soak.attempts,
        "finished_runs": soak.finished,
        "updates_per_run": soak.usual.update,
        "identical": not differences,
        "processes": options.processes,
        "seconds": round(time.monotonic() - began),
    }
    ends = [kill.seconds_to_end for kill in soak.kills if kill.seconds_to_end is not None]
    print(json.dumps(result | ({"slowest_end_of_launcher_seconds": round(max(ends), 1)} if ends else {})))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
