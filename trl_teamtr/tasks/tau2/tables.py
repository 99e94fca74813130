"""
Databases that share what was not touched.

The airline's database has seven megabytes. Rollouts read and write a few entries each, so that each has its own tables,
but copies an entry only when it is looked up.
"""

import copy
import json
from typing import Any, TypeVar


class LazyTable(dict):
    """
    A table that begins with the entries of another and copies each when it is first looked up, so that what is changed in
    it changes in this table alone. `values` and `items` return entries that may still be shared: they are for reading.

    Args:
        base (`dict`): The other table.
    """

    def __init__(self, base: dict[str, Any]):
        super().__init__(base)
        self._shared = set(base)

    def __getitem__(self, key: str) -> Any:
        if key in self._shared:
            self[key] = copy.deepcopy(super().__getitem__(key))
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Any):
        self._shared.discard(key)
        super().__setitem__(key, value)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default


D = TypeVar("D")


def share(database: D) -> D:
    """A database (a pydantic model whose fields are dicts of entries) that shares its entries with `database`."""
    tables = {name: LazyTable(table) for name, table in _tables(database).items()}
    return type(database).model_construct(**tables)  # type: ignore[attr-defined]


def changes(database: Any, base: Any) -> dict[tuple[str, str], str | None]:
    """
    What of a database is not as in the one that it shares its entries with: by table and key, the entry as JSON, or
    `None` where it is gone. Two databases of one base are equal where their changes are.
    """
    found: dict[tuple[str, str], str | None] = {}
    for name, before in _tables(base).items():
        after = _tables(database)[name]
        found |= {(name, key): None for key in before.keys() - after.keys()}
        for key, entry in after.items():
            old = before.get(key)
            if entry is not old and (text := _dump(entry)) != (None if old is None else _dump(old)):
                found[name, key] = text
    return found


def _tables(database: Any) -> dict[str, dict[str, Any]]:
    return {name: getattr(database, name) for name in type(database).model_fields}


def _dump(entry: Any) -> str:
    """As τ²-bench dumps it before it compares hashes."""
    return json.dumps(entry.model_dump(), sort_keys=True, default=str)
