"""
The study of replacements over all seeds that there are, from the tables of runs that were made at different times.

    python benchmarks/replacement_pooled.py docs/results/reproduction/replacement.csv docs/results/reproduction/replacement_more_seeds.csv

Each table (`benchmarks/reproduce.py replacement`) has the curve of each arm and seed; no seed may be in two of them. An arm may have fewer seeds than
others. Prints the shock and the accuracy of each arm, paired differences, and one JSON object last.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from reproduction.plots import read_csv
from reproduction.statistics import final_accuracy, interval, p_value, show


Values = dict[str, dict[int, float]]  # by arm and seed


def read(paths: list[Path]) -> tuple[Values, Values]:
    """Accuracies, means of the last three evaluations, and shocks."""
    curves: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    origins: dict[tuple[str, int], Path] = {}
    shocks: Values = defaultdict(dict)
    for path in paths:
        for row in read_csv(path):
            key = row["arm"], row["seed"]
            if origins.setdefault(key, path) != path:
                raise SystemExit(
                    f"Seed {key[1]} of {key[0]!r} is in {origins[key]} and in {path}. Leave one of them out."
                )
            curves[key].append((row["stage"], row["accuracy"]))
            if "shock" in row:
                shocks[key[0]][key[1]] = row["shock"]
    accuracies: Values = defaultdict(dict)
    for (arm, seed), curve in curves.items():
        accuracies[arm][seed] = final_accuracy({"curve": sorted(curve)})
    return accuracies, shocks


def differences(own: dict[int, float], other: dict[int, float]) -> list[float]:
    """Of the seeds that both have."""
    return [own[seed] - other[seed] for seed in sorted(own) if seed in other]


def main(options):
    accuracies, shocks = read(options.tables)
    never, aligned = accuracies["never_swapped"], accuracies["aligned"]
    found: dict[str, Any] = {}
    print("$ python benchmarks/replacement_pooled.py " + " ".join(map(str, options.tables)))
    for arm, own in accuracies.items():
        text = f"{arm:<14} accuracy {show(interval(list(own.values())))}"
        found[arm] = {"seeds": len(own), "accuracy": _rounded(list(own.values()))}
        if arm in shocks:
            text += f"  shock {show(interval(list(shocks[arm].values())))}"
            found[arm]["shock"] = _rounded(list(shocks[arm].values()))
        if arm != "never_swapped":
            paired = differences(own, never)
            text += f"  minus never swapped {show(interval(paired))}, p {p_value(paired):.2g}"
            found[arm]["minus_never_swapped"] = _rounded(paired)
        print(f"{text}  ({len(own)} seeds)")
    for arm in ("none", "thoughts_off"):
        excess = differences(shocks["aligned"], {seed: shock / 3 for seed, shock in shocks[arm].items()})
        print(f"shock aligned minus a third of that of {arm}: {show(interval(excess))}  ({len(excess)} seeds)")
    gains = differences(aligned, accuracies["more_training"])
    print(
        f"accuracy aligned minus more_training: {show(interval(gains))}, p {p_value(gains):.2g}  ({len(gains)} seeds)"
    )
    print(json.dumps(found | {"aligned_minus_more_training": _rounded(gains)}))


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 4) for value in interval(values)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path, help="CSV files")
    main(parser.parse_args())
