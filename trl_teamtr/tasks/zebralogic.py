"""ZebraLogic: grids of houses and attributes that are found from clues (1000 puzzles, `grid_mode`)."""

import json
from collections.abc import Mapping
from typing import Any

from datasets import Dataset

from .answers import final_text, last_json
from .published import Source, as_dataset


SOURCE = Source(
    "zebralogic",
    "WildEval/ZebraLogic",
    ("puzzle", "solution"),
    licence="not stated; the code of ZeroEval, its evaluation, is under Apache 2.0",
    split="test",
    config="grid_mode",
)
HIDDEN = "___"  # cells of the public copy without solutions

Grid = Mapping[str, Mapping[str, str]]


def instruction(grid: Grid) -> str:
    """How to answer: JSON with the houses and attributes of `grid`, and none of its cells."""
    empty = {house: dict.fromkeys(cells, "...") for house, cells in grid.items()}
    template = json.dumps({"reasoning": "...", "solution": empty}, indent=2)
    return f"End with the solution as JSON of this form:\n\n{template}"


def make_dataset(dataset_path: str | None = None, revision: str | None = None) -> Dataset:
    """
    Rows with `prompt` and `grid`, the solution as JSON. The arguments are those of
    [`~trl_teamtr.tasks.published.Source.read`].

    Raises:
        `ValueError`: If the solutions are hidden, as in allenai/ZebraLogicBench.
    """
    rows = []
    for row in SOURCE.read(dataset_path, revision):
        header, houses = row["solution"]["header"], row["solution"]["rows"]
        if any(HIDDEN in cells for cells in houses):
            raise ValueError(
                f"The solutions of these puzzles are hidden ({HIDDEN!r}). Use the copy that has them, {SOURCE.place}."
            )
        grid = {f"House {i}": dict(zip(header[1:], cells[1:], strict=True)) for i, cells in enumerate(houses, 1)}
        rows.append({"prompt": f"{row['puzzle'].strip()}\n\n{instruction(grid)}", "grid": json.dumps(grid)})
    return as_dataset(rows)


def cell_accuracy(text: str, grid: Grid) -> float:
    """
    Share of the cells of `grid` that the last JSON object of `text` has right under `solution`; case and blanks at the ends do
    not count, and of a list the first entry does.
    """
    found = last_json(text)
    solution = found.get("solution") if isinstance(found, dict) else None
    if not isinstance(solution, dict):
        return 0.0
    cells = [(solution.get(house), name, cell) for house, own in grid.items() for name, cell in own.items()]
    right = [isinstance(own, dict) and _same(own.get(name), cell) for own, name, cell in cells]
    return sum(right) / len(right)


def _same(said: Any, cell: str) -> bool:
    if isinstance(said, list) and said:
        said = said[0]
    return isinstance(said, str) and said.strip().lower() == cell.strip().lower()


def reward(completions: list, grid: list[str], **kwargs: Any) -> list[float]:
    """[`cell_accuracy`] of each answer. It is 1 where the whole puzzle is solved, which the default `threshold` counts."""
    return [cell_accuracy(final_text(said), json.loads(cells)) for said, cells in zip(completions, grid, strict=True)]


def read_answer(text: str, row: dict[str, Any]) -> str:
    """The solution in a message, in one form; empty if there is none."""
    found = last_json(final_text(text))
    return json.dumps(found["solution"], sort_keys=True) if isinstance(found, dict) and "solution" in found else ""
