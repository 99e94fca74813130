"""
Draws the plots of the docs again, from the data that are kept beside them. Nothing is run.

    python benchmarks/plot_results.py docs/results
"""

import argparse
import json
from pathlib import Path
from typing import Any

import guess_number
import plot_resampling_cost
import reuse_learning
import service_desk
from reproduction.plots import plot_certificates, plot_learning_rates, plot_long_training, plot_scaling, read_csv

from trl_teamtr.cli import quickstart


STUDIES = {
    "scaling": plot_scaling,
    "certificates": plot_certificates,
    "learning_rates": plot_learning_rates,
    "long_training": plot_long_training,
}


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def draw(results: Path):
    """Write all plots below `results`."""
    for study, plot in STUDIES.items():
        path = results / "reproduction" / study
        plot(read_csv(path.with_suffix(".csv")), path.with_suffix(".png"))
    reuse_learning.plot(results / "reuse_learning", read_lines(results / "reuse_learning" / "cells.jsonl"))
    for learned in (guess_number, service_desk):
        folder = results / learned.__name__
        cells = read_lines(folder / "cells.jsonl")
        learned.plot(
            folder, {arm: {cell["seed"]: cell for cell in cells if cell["arm"] == arm} for arm in learned.ARMS}
        )
    tables = plot_resampling_cost.read_tables((results / "resampling_cost.txt").read_text())
    plot_resampling_cost.plot(tables, results / "resampling_cost.png")
    for run in (*sorted((results / "quickstart").glob("seed*/")), results / "smollm2_chain_sum"):
        logs, seed = read_lines(run / "log.jsonl"), json.loads((run / "result.json").read_text())["seed"]
        keys = (key.split("/") for log in logs for key in log)
        names = dict.fromkeys(parts[1] for parts in keys if parts[0] == "agent" and parts[2] == "kl")
        quickstart.plot(logs, list(names), run / "training.png", seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="docs/results")
    draw(parser.parse_args().results)
