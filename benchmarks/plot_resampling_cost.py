"""
Draws what `resampling_cost.py` has printed for LINK: tokens, and seconds of a stage, against the number of agents.

    python benchmarks/plot_resampling_cost.py docs/results/resampling_cost.txt docs/results/resampling_cost.png
"""

import argparse
import re
from pathlib import Path


SECTION = re.compile(r"LINK, n = (\d+), radius ([\d.]+)")
ROW = re.compile(r"([a-z ]+?) +([\d.]+(?: +[\d.]+)+)$")
TOKENS, SECONDS = 0, 5  # columns


def read_tables(text: str) -> dict[str, dict[str, dict[int, tuple[float, float]]]]:
    """Radius to mode to number of agents to tokens and seconds of a stage."""
    found: dict[str, dict[str, dict[int, tuple[float, float]]]] = {}
    agents, radius = None, None
    for line in text.splitlines():
        if section := SECTION.match(line):
            agents, radius = int(section[1]), section[2]
        elif not line:
            agents = None
        elif agents is not None and (row := ROW.match(line)):
            values = [float(value) for value in row[2].split()]
            found.setdefault(radius, {}).setdefault(row[1], {})[agents] = values[TOKENS], values[SECONDS]
    return found


def plot(tables: dict[str, dict[str, dict[int, tuple[float, float]]]], path: Path):
    """Two panels for each radius, with logarithmic axes: a straight line is a power of n."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2 * len(tables), figsize=(5 * 2 * len(tables), 4), constrained_layout=True)
    for number, (radius, modes) in enumerate(tables.items()):
        for column, unit in enumerate(("decoded tokens", "seconds")):
            axis = axes[2 * number + column]
            for mode, by_size in modes.items():
                axis.loglog(list(by_size), [values[column] for values in by_size.values()], ".-", label=mode)
            sizes = list(next(iter(modes.values())))
            axis.set_xticks(sizes, map(str, sizes), minor=False)
            axis.set_xticks([], minor=True)
            axis.set(
                xlabel="agents", ylabel=f"{unit} per stage", title=f"radius {radius} nats per message, seed 0 (n = 1)"
            )
            axis.legend()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="what `resampling_cost.py` printed")
    parser.add_argument("image", type=Path)
    options = parser.parse_args()
    plot(read_tables(options.output.read_text()), options.image)
