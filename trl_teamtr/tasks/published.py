"""Published benchmarks: where their rows are, which columns they have, and how they are read from the hub, a file or a clone."""

import glob
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, load_dataset


Row = dict[str, Any]
_TABLES = {".parquet": "parquet", ".csv": "csv"}


def _as_they_are(content: Any, path: str) -> list[Row]:
    return content


@dataclass(frozen=True)
class Source:
    """
    Where a benchmark is published.

    Args:
        name (`str`): Its `dataset_name`.
        place (`str`): Id on the hub, or address of the repository.
        columns (`tuple[str]`): The columns that are read.
        licence (`str`): Of the rows, as their publisher states it.
        split, config (`str`, *optional*): On the hub. `split=None` if it is not there.
        files (`tuple[str]`): Patterns of the files in a clone of its repository.
        unpack (`Callable[[Any, str], list[Row]]`): The rows in the content of a JSON file of the repository, whose path is given.
    """

    name: str
    place: str
    columns: tuple[str, ...]
    licence: str
    split: str | None = "train"
    config: str | None = None
    files: tuple[str, ...] = ()
    unpack: Callable[[Any, str], list[Row]] = _as_they_are

    def read(self, dataset_path: str | None = None, revision: str | None = None) -> list[Row]:
        """
        The rows, with the columns as they are published.

        Args:
            dataset_path (`str`, *optional*): A JSON, JSON-lines, parquet or CSV file with the same columns, or a clone of the
                repository. Defaults to the hub.
            revision (`str`, *optional*): Branch, tag or commit on the hub.

        Raises:
            `FileNotFoundError`: If there is no such file, or the clone lacks the files.
            `ValueError`: If a column is missing, or the benchmark is not on the hub and no path is given.
        """
        if dataset_path is None:
            if self.split is None:
                raise ValueError(
                    f"{self.name!r} is not on the hub. Clone {self.place} and set `dataset_path` to the clone, or to a file with "
                    f"the column(s) {', '.join(self.columns)}."
                )
            return self._check(
                list(load_dataset(self.place, self.config, split=self.split, revision=revision)), self.place
            )
        rows: list[Row] = []
        for path in self._paths(dataset_path):
            rows += self._check(_read_file(path, self.unpack), path)
        return rows

    def _paths(self, path: str) -> list[str]:
        if os.path.isfile(path):
            return [path]
        found = sorted({each for part in self.files for each in glob.glob(os.path.join(glob.escape(path), part))})
        if not found:
            where = f"a clone of {self.place} with {' or '.join(self.files)}, or " if self.files else ""
            raise FileNotFoundError(
                f"{path!r} has no rows of {self.name!r}. Set `dataset_path` to {where}a .json, .jsonl, .parquet or .csv file with the "
                f"column(s) {', '.join(self.columns)}."
            )
        return found

    def _check(self, rows: Sequence[Row], path: str) -> list[Row]:
        """`rows`, if each has all columns."""
        if not rows:
            raise ValueError(f"{path!r} is empty.")
        for number, row in enumerate(rows):
            missing = [column for column in self.columns if column not in row]
            if missing:
                raise ValueError(
                    f"{self.name!r} needs the column(s) {', '.join(self.columns)}, but row {number} of {path!r} lacks "
                    f"{', '.join(missing)}; it has {', '.join(row)}."
                )
        return list(rows)


def _read_file(path: str, unpack: Callable[[Any, str], list[Row]]) -> list[Row]:
    """The rows of a file by its extension."""
    extension = os.path.splitext(path)[1]
    if extension in _TABLES:
        return list(load_dataset(_TABLES[extension], data_files=path, split="train"))
    if extension not in (".json", ".jsonl"):
        raise ValueError(f"{path!r} is none of .json, .jsonl, .parquet and .csv.")
    with open(path, encoding="utf-8") as file:  # not by `datasets`, which needs one type for a column
        content = [json.loads(line) for line in file if line.strip()] if extension == ".jsonl" else json.load(file)
    return unpack(content, path)


def as_dataset(rows: Sequence[Row], instruction: str = "") -> Dataset:
    """
    Rows whose `prompt` is text, as a dataset of conversations.

    Args:
        rows (`Sequence[dict]`): The rows, each with the same keys.
        instruction (`str`): Follows each prompt after an empty line.
    """
    tail = f"\n\n{instruction}" if instruction else ""
    return Dataset.from_list([row | {"prompt": [{"role": "user", "content": row["prompt"] + tail}]} for row in rows])
