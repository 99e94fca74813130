"""
How many seeds a study needs, from the spread that is measured: paired differences of the accuracy of two arms.

    python benchmarks/power.py            # seconds
    python benchmarks/power.py --smoke    # the same with fewer simulated studies

Reads the results of the studies in docs/results. Arms of a study share warm starts, tasks and seeds, so what counts is the
standard deviation over seeds of the difference of an arm from its reference, pooled over the arms of the study (those that
equal their reference in every seed left out). It is estimated from a few seeds; the table has the limits of its 80 %
interval by chi-square, as if the differences of the arms were independent, which makes them too narrow.

`seeds` is the smallest number with which the two-sided paired t-test finds a difference of 0.05 in 80 of 100 studies:
by itself, and at the strictest step of Holm's correction for as many comparisons as the study has.

Stopping rule of studies that follow: one look at half of the seeds, which ends a comparison whose p after Holm's correction
is below 0.001 (Haybittle and Peto), and one at all seeds, at 0.05. Nothing else ends or prolongs a study. Its share of false
discoveries of a difference of 0 is simulated, for normal differences.

Prints the tables and one JSON object last.
"""

import argparse
import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import chi2, nct, t


RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
EFFECT, LEVEL, POWER = 0.05, 0.05, 0.8
INTERIM = 0.001
MOST = 2000  # seeds

# Accuracy of each arm and seed, and the arm that each is compared with
Accuracies = dict[str, dict[int, float]]


@dataclass
class Study:
    """
    Paired differences of a study.

    Args:
        name (`str`): What it is.
        differences (`dict[str, list[float]]`): Of each arm from its reference, seed by seed.
    """

    name: str
    differences: dict[str, list[float]]

    @property
    def freedom(self) -> int:
        return sum(len(values) - 1 for values in self.differences.values())

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds, pooled over arms."""
        squares = sum((len(values) - 1) * np.var(values, ddof=1) for values in self.differences.values())
        return math.sqrt(squares / self.freedom)

    def limits(self) -> tuple[float, float]:
        """The 80 % interval of [`~Study.deviation`]."""
        ends = (chi2.ppf(part, self.freedom) for part in (0.9, 0.1))
        low, high = (self.deviation * math.sqrt(self.freedom / end) for end in ends)
        return low, high


def pair(name: str, accuracies: Accuracies, reference: str, arms: list[str]) -> Study:
    """`arms` minus `reference`, of the seeds that both have."""
    own, found = accuracies[reference], {}
    for arm in arms:
        values = [value - own[seed] for seed, value in accuracies[arm].items() if seed in own]
        if len(values) > 1 and np.ptp(values) > 0:
            found[arm] = values
    return Study(name, found)


def read_rows(path: str) -> list[dict[str, str]]:
    with open(RESULTS / path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_studies() -> Iterator[Study]:
    ablations: Accuracies = defaultdict(dict)
    for row in read_rows("reproduction/ablations.csv"):
        ablations[row["arm"]][int(row["seed"])] = float(row["accuracy"])
    large = [arm for arm in ablations if arm.startswith("large_steps")]
    yield pair("ablations", ablations, "full", [arm for arm in ablations if arm not in ("full", *large)])
    yield pair("large steps", ablations, "large_steps_full", [arm for arm in large if arm != "large_steps_full"])
    scaling: dict[str, Accuracies] = defaultdict(lambda: defaultdict(dict))
    for row in read_rows("reproduction/scaling.csv"):
        if row["equal"] == "prompts":
            scaling[row["n"]][row["arm"]][int(row["seed"])] = float(row["accuracy"])
    for agents, accuracies in scaling.items():
        if "full" in accuracies:
            yield pair(f"scaling, n = {agents}", accuracies, "full", [arm for arm in accuracies if arm != "full"])
    curves: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read_rows("reproduction/smollm2.csv"):
        curves[row["arm"]][int(row["seed"])].append(float(row["accuracy"]))
    with open(RESULTS / "guess_number" / "cells.jsonl", encoding="utf-8") as file:
        for cell in map(json.loads, file):
            curves[cell["arm"]][cell["seed"]] = [accuracy for _, accuracy in cell["curve"]]
    last = {arm: {seed: float(np.mean(curve[-3:])) for seed, curve in own.items()} for arm, own in curves.items()}
    models = [arm for arm in last if arm.startswith("smollm2")]
    yield pair("SmolLM2", last, "smollm2_full", [arm for arm in models if arm != "smollm2_full"])
    yield pair("guess-a-number", last, "alone", ["team"])


def power(seeds: int, deviation: float, level: float) -> float:
    """Of the two-sided paired t-test, for a mean difference of `EFFECT`."""
    edge, shift = t.ppf(1 - level / 2, seeds - 1), EFFECT * math.sqrt(seeds) / deviation
    # The other side, of a difference with the wrong sign, is far below a thousandth where the power is anything
    return float(nct.sf(edge, seeds - 1, shift))


def count_seeds(deviation: float, level: float) -> int:
    """The smallest number of seeds with the power `POWER`; `MOST` if it takes more."""
    return next((seeds for seeds in range(2, MOST) if power(seeds, deviation, level) >= POWER), MOST)


def false_discoveries(seeds: int, studies: int) -> float:
    """Share of studies without a difference in which the stopping rule finds one."""
    drawn = np.random.default_rng(0).standard_normal((studies, seeds))

    def p_values(part: np.ndarray) -> np.ndarray:
        number = part.shape[1]
        statistic = part.mean(axis=1) / (part.std(axis=1, ddof=1) / math.sqrt(number))
        return 2 * t.sf(np.abs(statistic), number - 1)

    return float(np.mean((p_values(drawn[:, : seeds // 2]) < INTERIM) | (p_values(drawn) < LEVEL)))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="Few simulated studies.")
    return parser


def main(options: argparse.Namespace):
    studies, found = list(read_studies()), {}
    print(f"Seeds that tell a difference of {EFFECT} in {POWER:.0%} of studies, two-sided level {LEVEL}\n")
    print("study             arms seeds  deviation [80 %]        seeds [80 %]       seeds after Holm")
    for study in studies:
        measured, number = max(map(len, study.differences.values())), len(study.differences)
        low, high = study.limits()
        needed = [count_seeds(deviation, LEVEL) for deviation in (study.deviation, low, high)]
        strict = count_seeds(study.deviation, LEVEL / number)
        print(
            f"{study.name:<17} {number:4} {measured:5}  {study.deviation:.4f} [{low:.4f}, {high:.4f}]  "
            f"{needed[0]:4} [{needed[1]:3}, {needed[2]:3}]  {strict:16}"
        )
        found[study.name] = {"deviation": round(study.deviation, 4), "seeds": needed[0], "seeds_after_holm": strict}
    print("\nBy arm, for the ablations: deviation, seeds, seeds after Holm's correction for all arms of the study")
    for arm, values in studies[0].differences.items():
        deviation = float(np.std(values, ddof=1))
        seeds = [count_seeds(deviation, level) for level in (LEVEL, LEVEL / len(studies[0].differences))]
        print(f"{arm:<20} {deviation:.4f}  {seeds[0]:4}  {seeds[1]:4}")
    simulated = 2000 if options.smoke else 200_000
    errors = {seeds: false_discoveries(seeds, simulated) for seeds in (16, 32, 64)}
    print(f"\nFalse discoveries of the stopping rule, {simulated} simulated studies: {errors}")
    print(json.dumps(found | {"false_discoveries": errors}))


if __name__ == "__main__":
    main(make_parser().parse_args())
