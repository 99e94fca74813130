"""
How many seeds the study of replacements needs (`benchmarks/reproduce.py replacement`), from runs that were there before it.

    python benchmarks/replacement_power.py docs/results/reproduction/ablations.csv

The final accuracy after a swap is compared, seed by seed, with that of the team that was never swapped, and its 95 % interval
shall lie above -0.05: with no true difference, half its width must be at most 0.05. The standard deviation of such differences is
that of the arms of the ablations that could not be told from the full method, which have the same team size, task and stages.
"""

import argparse
import csv
import math
from collections import defaultdict

import numpy as np
from scipy.stats import nct, t


HALF_WIDTH, REFERENCE, LEVEL = 0.05, "full", 0.05
# Arms that differ from the reference in how rollouts are used, not in how far an update may go
ARMS = ("speculative", "stale", "importance", "every_2", "reversed", "random_order")
LARGEST = 40


def half_width(deviation: float, seeds: int) -> float:
    """Half the 95 % interval of a mean of `seeds` differences."""
    return float(t.ppf(1 - LEVEL / 2, seeds - 1)) * deviation / math.sqrt(seeds)


def power(deviation: float, seeds: int) -> float:
    """Probability that the interval lies above `-HALF_WIDTH` if the true difference is 0."""
    shift = HALF_WIDTH / deviation * math.sqrt(seeds)
    return float(1 - nct.cdf(t.ppf(1 - LEVEL / 2, seeds - 1), seeds - 1, shift))


def main(options):
    accuracy: dict[str, dict[str, float]] = defaultdict(dict)
    with open(options.csv, encoding="utf-8") as file:
        for row in csv.DictReader(file):
            accuracy[row["arm"]][row["seed"]] = float(row["accuracy"])
    variances = []
    for arm in (arm for arm in ARMS if arm in accuracy):
        values = [value - accuracy[REFERENCE][seed] for seed, value in accuracy[arm].items()]
        variances.append(float(np.var(values, ddof=1)))
        print(
            f"{arm:<14} minus {REFERENCE}: mean {np.mean(values):+.3f}, standard deviation {variances[-1] ** 0.5:.3f}, {len(values)} seeds"
        )
    deviation = math.sqrt(sum(variances) / len(variances))
    print(f"pooled standard deviation of a difference: {deviation:.3f}")
    enough = next(n for n in range(2, LARGEST) if half_width(deviation, n) <= HALF_WIDTH)
    print(f"half the interval is at most {HALF_WIDTH} from {enough} seeds on ({half_width(deviation, enough):.3f})")
    for seeds in (5, enough, *(n for n in range(2, LARGEST) if power(deviation, n) >= 0.8)):
        print(
            f"{seeds} seeds: half the interval {half_width(deviation, seeds):.3f}, power {power(deviation, seeds):.2f}"
        )
        if power(deviation, seeds) >= 0.8:
            break


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", help="the table of the ablations, by seed")
    main(parser.parse_args())
