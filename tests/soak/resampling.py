"""
The law of resampled rollouts against the exact one, over the whole matrix of small teams: 2 and 3 agents, 1 and 2 rounds
(at most four turns, so that of three agents one speaks twice), three routers, each sampling transform, with two successive
updates that know nothing of the rollouts, so that drafts of drafts occur; and suffix resampling, to which the transforms
make no difference, without one:

    python tests/soak/resampling.py --resamples 200000      # for each of 72 cells; more than an hour on two cores
    python tests/soak/resampling.py --resamples 20000
    python tests/soak/resampling.py --results runs/law.jsonl   # stopped and started again, it goes on where it was

Each cell is a chi-square test after each update, passed at 0.001 divided by the number of tests. Then the same with a
wrong acceptance rule, a wrong residual, a stale draft law and stale rollouts, each of which must fail. Prints one JSON object
last; ends with an error if a test fails that should pass, or the other way round.
"""

import argparse
import collections
import concurrent.futures
import gc
import itertools
import json
import os
import platform
import sys
import tempfile
from pathlib import Path


HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
os.environ |= {"HF_HUB_OFFLINE": "1", "CI": "1", "OMP_NUM_THREADS": "1"}

import pytest  # noqa: E402
import scipy  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
import trl  # noqa: E402
from draft_cases import TRANSFORMS, WRONG_RULES, Case, count, p_value  # noqa: E402


MATRIX = ((2, 3), (1, 2), ("round_robin", "random", "text"))
CELLS = [*itertools.product(*MATRIX, TRANSFORMS, ["speculative"]), *itertools.product(*MATRIX, ["none"], ["suffix"])]
UPDATES = 2
ROWS = 10_000  # at a time
WRONG_CELL = (2, 1, "round_robin", "none")


def resample(cell: tuple, total: int, scale: float = 0.15, patch=None) -> list[float]:
    """The p-value after each update."""
    gc.disable()  # a million small objects and no cycles: looking for some took more than half of the time
    torch.set_num_threads(1)
    torch.manual_seed(CELLS.index(cell) if cell in CELLS else 0)
    counts, laws = [collections.Counter() for _ in range(UPDATES)], []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        case = Case(folder, *cell)
        weights = [weight for member in case.trainer.members for weight in member.engine.weights]
        first = [weight.clone() for weight in weights]
        if patch is not None:
            patch(monkeypatch)
        for _ in range(max(1, total // ROWS)):
            for weight, before in zip(weights, first, strict=True):
                weight.copy_(before)
            case.trainer.resampler.start_stage()
            case.rollouts(ROWS)
            for number, agent in enumerate((0, cell[0] - 1)):
                case.update(agent, seed=number, scale=scale)
                counts[number] += count(case.rollouts(ROWS))
                if len(laws) == number:
                    laws.append(case.law(monkeypatch))
    return [p_value(*pair) for pair in zip(counts, laws, strict=True)]


def wrong_rule(number: int, total: int) -> float:
    """The p-value with one thing wrong: a rule, or (the last number) no resampling at all."""
    patch = WRONG_RULES[number] if number < len(WRONG_RULES) else None
    mode = "speculative" if patch else "stale"
    return resample((*WRONG_CELL, mode), total, scale=0.6, patch=patch)[0]


def read_results(path: Path | None, total: int) -> dict[tuple, list[float]]:
    """The cells that an earlier run with as many resamples has finished."""
    if path is None or not path.exists():
        return {}
    entries = map(json.loads, path.read_text().splitlines())
    return {tuple(entry["cell"]): entry["p"] for entry in entries if entry["resamples"] == total}


def run_cells(pool: concurrent.futures.Executor, total: int, path: Path | None):
    """Each cell with its p-values, in order; those that were not there are written to `path`."""
    found = read_results(path, total)
    futures = {cell: pool.submit(resample, cell, total) for cell in CELLS if cell not in found}
    for cell in CELLS:
        if cell in futures:
            found[cell] = futures[cell].result()
            if path is not None:
                with open(path, "a") as file:
                    file.write(json.dumps({"cell": cell, "resamples": total, "p": found[cell]}) + "\n")
        yield cell, found[cell]


def main(total: int, jobs: int, results: Path | None):
    limit = 0.001 / (len(CELLS) * UPDATES)
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        found = {}
        for cell, values in run_cells(pool, total, results):
            found[cell] = values
            name = "{} agents, {} rounds, {}, {}, {}".format(*cell)
            print(f"{name:<55}" + "".join(f"{value:12.5f}" for value in values), flush=True)
        names = [patch.__name__ for patch in WRONG_RULES] + ["stale rollouts"]
        wrong = dict(zip(names, pool.map(wrong_rule, range(len(names)), [total] * len(names)), strict=True))
    for name, value in wrong.items():
        print(f"{name:<55}{value:12.2e}")
    values = [value for pair in found.values() for value in pair]
    result = {"cells": len(CELLS), "tests": len(values), "resamples_per_test": max(1, total // ROWS) * ROWS}
    result |= {"smallest_p": min(values), "limit": limit, "below_0.1": sum(value < 0.1 for value in values)}
    print(json.dumps(result | {"wrong_rules_p": wrong}))
    if min(values) <= limit or max(wrong.values()) > limit:
        raise SystemExit("A test failed that should pass, or passed that should fail.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resamples", type=int, default=200_000, help="for each cell and update")
    parser.add_argument("--results", type=Path, help="file in which finished cells are kept")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    print("$ python " + " ".join(["tests/soak/resampling.py", *sys.argv[1:]]))
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, trl {trl.__version__}, scipy "
        f"{scipy.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, no GPU"
    )
    main(options.resamples, options.jobs, options.results)
