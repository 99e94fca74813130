"""AutoLogi: open-ended puzzles, each with the code that checks an arrangement (1575 in English)."""

import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from datasets import Dataset

from .answers import final_text
from .published import Source, as_dataset
from .sandbox import Limits, run_isolated


SOURCE = Source(
    "autologi",
    "https://github.com/8188zq/AutoLogi",
    ("prompt", "code"),
    licence="not stated in the repository",
    split=None,
    files=("testing-data/AutoLogi_en.jsonl",),
)
CHECKS = ("Inputs_Check_code", "Constraint_List_code")
LIMITS = Limits()

_BLOCK = re.compile(r"```[ \t]*\w*[ \t]*\n(.*?)```", re.DOTALL)
_COMMENT = re.compile(r"//[^\n\"']*\n")
# The answer is read where it is checked: an arrangement may be anything that Python can write
_PROGRAM = """
import ast, json

def read(text):
    for form in (text, text.partition("=")[2]):
        for parse in (ast.literal_eval, json.loads):
            try:
                return parse(form.strip())
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                continue
    raise ValueError("the answer is neither a Python literal nor JSON")

arrangement = read(data)
{checks}
result = bool(inputs_check(arrangement)) and all(bool(holds(arrangement)) for holds in constraint_list)
"""

logger = logging.getLogger(__name__)


def make_dataset(dataset_path: str | None = None, revision: str | None = None) -> Dataset:
    """
    Rows with `prompt` and `checks`, the code of the puzzle. The arguments are those of
    [`~trl_teamtr.tasks.published.Source.read`]; the Chinese puzzles are the repository's other file.

    Raises:
        `ValueError`: If `code` lacks a part.
    """
    rows = []
    for number, row in enumerate(SOURCE.read(dataset_path, revision)):
        code = json.loads(row["code"]) if isinstance(row["code"], str) else row["code"]
        missing = [part for part in CHECKS if part not in code]
        if missing:
            raise ValueError(f"`code` of row {number} lacks {', '.join(missing)}; it has {', '.join(code)}.")
        rows.append({"prompt": row["prompt"], "checks": "\n".join(code[part] for part in CHECKS)})
    return as_dataset(rows)


def extract_arrangement(text: str) -> str | None:
    """The last code block of `text`, else its last dict, else its last list; `None` if there is none."""
    blocks = _BLOCK.findall(text)
    found = blocks[-1] if blocks else _last_pair(text, "{", "}") or _last_pair(text, "[", "]")
    return _COMMENT.sub("\n", found) if found else None


def _last_pair(text: str, opening: str, closing: str) -> str | None:
    """The last part of `text` from an outermost opening bracket to its closing one."""
    depth, start, found = 0, 0, None
    for place, character in enumerate(text):
        if character == opening:
            start = start if depth else place
            depth += 1
        elif character == closing and depth:
            depth -= 1
            found = text[start : place + 1] if depth == 0 else found
    return found


def check(text: str, checks: str, limits: Limits = LIMITS) -> float:
    """
    1 if the arrangement in `text` passes `checks` in a sandbox, else 0. Why a checker has no verdict is logged.

    Raises:
        `~trl_teamtr.tasks.sandbox.IsolationError`: If this machine cannot isolate the checker.
    """
    arrangement = extract_arrangement(text)
    if arrangement is None:
        return 0.0
    outcome = run_isolated(_PROGRAM.replace("{checks}", checks), arrangement, limits)
    if outcome.fault is not None:
        logger.warning("A checker of AutoLogi has no verdict, which is scored 0: %s", outcome.fault)
    return float(outcome.result is True)


def reward(completions: list, checks: list[str], **kwargs: Any) -> list[float]:
    """[`check`] of each answer, several at a time."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(check, map(final_text, completions), checks))


def read_answer(text: str, row: dict[str, Any]) -> str:
    """The arrangement in a message as it is written, without blanks; empty if there is none."""
    return re.sub(r"\s", "", extract_arrangement(final_text(text)) or "")
