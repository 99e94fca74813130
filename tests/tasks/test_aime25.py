"""AIME 2025: its columns, and answers by hand."""

import json

import pytest
from aime_cases import AIME_CASES

from trl_teamtr.tasks import aime25


# The columns as published, of another problem
ROW = {"problem_idx": 1, "problem": "What is $2+2$?", "answer": 4, "problem_type": ["Algebra"]}


def test_columns(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    (row,) = aime25.make_dataset(str(tmp_path / "rows.jsonl"))
    (message,) = row["prompt"]
    assert (
        message["role"] == "user"
        and message["content"].startswith("What is $2+2$?\n\n")
        and "boxed" in message["content"]
    )
    assert row["answer"] == "4" and set(row) == {"prompt", "answer"}
    assert (aime25.SOURCE.place, aime25.SOURCE.split) == ("MathArena/aime_2025", "train")


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([{"problem": "?", "Answer": "4"}]))
    with pytest.raises(
        ValueError,
        match=r"'aime25' needs .* problem, answer, but row 0 of .*rows.json' lacks answer; it has problem, Answer",
    ):
        aime25.make_dataset(str(tmp_path / "rows.json"))


@pytest.mark.parametrize("answer, text, right", AIME_CASES)
def test_answers(answer, text, right):
    assert aime25.reward([[{"role": "assistant", "content": text}]], [answer]) == [float(right)]
