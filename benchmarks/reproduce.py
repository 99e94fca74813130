"""
The paper's claims at the scale of a CPU: LINK teams, five seeds, matched learning rates.

    python benchmarks/reproduce.py scaling runs/reproduce          # staleness against the number of agents
    python benchmarks/reproduce.py ablations runs/reproduce        # ablations, orders, out-of-region rates
    python benchmarks/reproduce.py learning_rates runs/reproduce --seeds 16    # seven, over a factor of 100
    python benchmarks/reproduce.py long_training runs/reproduce --seeds 8      # a hundred stages
    python benchmarks/reproduce.py defaults runs/reproduce --seeds 16          # settings, one at a time
    python benchmarks/reproduce.py credit runs/reproduce           # groups by rollout and by turn
    python benchmarks/reproduce.py certificates runs/reproduce     # bounds, rank correlation, radii by turn
    python benchmarks/reproduce.py monitoring runs/reproduce       # the KL on a part of the messages
    python benchmarks/reproduce.py smollm2 runs/reproduce --seeds 3 --jobs 1    # a real model: hours
    python benchmarks/reproduce.py replacement runs/replacement --seeds 10    # a member replaced by another model
    python benchmarks/reproduce.py smollm2_replacement runs/smollm2_replacement --seeds 3 --jobs 1    # of a real model
    python benchmarks/reproduce.py team_tasks runs/team_tasks --seeds 4 --jobs 1    # a team of it against a single agent
    python benchmarks/reproduce.py cost runs/reproduce             # what the diagnostics cost
    python benchmarks/reproduce.py scaling runs/reproduce --summary    # tables and plots of what is there
    python benchmarks/reproduce.py scaling runs/quick --quick          # one seed, small: minutes
    python benchmarks/reproduce.py scaling runs/smoke --smoke          # seconds, in one process: says only that it runs

Each cell writes its own file in the folder and is not run again, so that everything can be stopped and gone on with at
any time. A process runs several cells of LINK, one after another, since starting it takes a part of a cell's time. Prints
tables, writes CSV files and plots into the folder, and prints one JSON object last.
"""

import argparse
import gc
import json
import os
import sys
from pathlib import Path


os.environ.setdefault("OMP_NUM_THREADS", "1")  # two cells run side by side
os.environ["CI"] = "1"  # no telemetry
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "scripts"))

from machine import describe_machine  # noqa: E402
from reproduction import (  # noqa: E402
    ablations,
    certificates,
    cost,
    credit,
    defaults,
    learning_rates,
    light,
    long_training,
    monitoring,
    replacement,
    scaling,
    smollm2,
    smollm2_replacement,
    team_tasks,
)
from reproduction.arms import ARMS  # noqa: E402
from reproduction.cell import LARGEST_TEAM, Cell, prepare_team, run_cell, team_path  # noqa: E402
from side_by_side import run_script  # noqa: E402
from size import add_size  # noqa: E402


STUDIES = {
    "scaling": scaling,
    "ablations": ablations,
    "learning_rates": learning_rates,
    "long_training": long_training,
    "defaults": defaults,
    "credit": credit,
    "certificates": certificates,
    "monitoring": monitoring,
    "smollm2": smollm2,
    "replacement": replacement,
    "smollm2_replacement": smollm2_replacement,
    "team_tasks": team_tasks,
    "cost": cost,
}
# At most, of those that take seconds
CELLS_PER_PROCESS = 8
# The others share their cells
OWN_CELLS = ("monitoring", "smollm2", "replacement", "smollm2_replacement", "team_tasks")
RUNNERS = {name: STUDIES[name].run_cell for name in OWN_CELLS}
# What they share: their runs keep little
LIGHT = ("learning_rates", "long_training", "defaults", "credit")
# Their cells are committed, a line for each
KEPT = (*LIGHT, "replacement", "smollm2_replacement", "team_tasks")


def path_of(study: str, cell: Cell, folder: Path) -> Path:
    return monitoring.path_of(cell, folder) if study == "monitoring" else cell.path(folder)


def launch(study: str, arguments: list[list[str]], options):
    """This script with each of `arguments`, side by side; in this process without jobs, or if it only has to run."""
    folder, smoke = Path(options.folder), options.size == "smoke"
    here = (lambda each: main(make_parser().parse_args(each))) if smoke or options.jobs == 0 else None
    command = [study, str(folder), *(["--smoke"] if smoke else [])]
    run_script(__file__, [[*command, *each] for each in arguments], options.jobs, folder / "output.txt", here)


def warm_up(study: str, cells: list[Cell], options):
    """Make the LINK teams that `cells` begin with: first, since cells side by side share them."""
    size_of = light.team_size if study in LIGHT else lambda cell: LARGEST_TEAM
    teams = sorted({(cell.seed, size_of(cell)) for cell in cells if cell.arm in ARMS})
    waiting = [team for team in teams if not team_path(team[0], Path(options.folder), team[1]).exists()]
    launch(study, [["--team", *map(str, team)] for team in waiting], options)


def find_waiting(study: str, cells: list[Cell], options) -> list[Cell]:
    """The cells that there is no result of."""
    return [cell for cell in dict.fromkeys(cells) if not path_of(study, cell, Path(options.folder)).exists()]


def run(study: str, cells: list[Cell], options):
    """Run what is missing, `options.jobs` processes at a time."""
    waiting = find_waiting(study, cells, options)
    print(f"{len(waiting)} cells to run", file=sys.stderr)
    # A few rounds of processes even at the end, so that none is left to run alone
    number = 1 if study in RUNNERS else max(1, min(CELLS_PER_PROCESS, len(waiting) // (4 * max(1, options.jobs))))
    parts = [waiting[first : first + number] for first in range(0, len(waiting), number)]
    launch(study, [[word for cell in part for word in ("--cell", json.dumps(vars(cell)))] for part in parts], options)


def run_cells(study: str, given: list[str], folder: Path):
    """Run the cells that `given` describes, in this process."""
    runner = light.run_cell if study in LIGHT else RUNNERS.get(study, run_cell)
    for text in given:
        runner(Cell(**light.as_fields(json.loads(text))), folder)
        gc.collect()  # a trainer has cycles


def main(options):
    folder, study = Path(options.folder), STUDIES[options.study]
    folder.mkdir(parents=True, exist_ok=True)
    if options.team is not None:
        seed, agents = options.team
        return prepare_team(seed, folder, options.size, agents)
    if options.cell:
        return run_cells(options.study, options.cell, folder)
    seeds = range(options.first, options.first + (options.seeds if options.size == "full" else 1))
    cells = [cell for cell in study.cells(seeds, options.size) if not options.arms or cell.arm in options.arms]
    if options.study in KEPT:
        light.restore(options.study, cells, folder)
    if not options.summary:
        warm_up(options.study, find_waiting(options.study, cells, options), options)
        run(options.study, cells, options)
    if cells and not any(path_of(options.study, cell, folder).exists() for cell in cells):
        raise SystemExit(f"There is no result of {options.study!r} in {folder}. Run it without `--summary` first.")
    print("$ python " + " ".join(["benchmarks/reproduce.py", *sys.argv[1:]]))
    print(f"{describe_machine()}, {options.jobs or 1} cells at a time")
    print(json.dumps(study.report(folder, seeds, options.size) | {"study": options.study, "size": options.size}))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("folder", help="where the cells' results go")
    add_size(parser)
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--arms", nargs="+", help="run these alone; the tables are of all that is there")
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time; 0 runs them in this process")
    parser.add_argument("--cell", action="append", help=argparse.SUPPRESS)
    parser.add_argument("--team", type=int, nargs=2, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
