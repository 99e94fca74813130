"""AIME 2024: its columns, and answers by hand."""

import json

import pytest
from aime_cases import AIME_CASES

from trl_teamtr.tasks import aime24


# The columns as published, of another problem
ROW = {
    "id": 60,
    "problem": "What is $2+2$?",
    "solution": "It is 4.",
    "answer": "004",
    "url": "https://x",
    "year": "2024",
}


def test_columns(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    (row,) = aime24.make_dataset(str(tmp_path / "rows.jsonl"))
    (message,) = row["prompt"]
    assert (
        message["role"] == "user"
        and message["content"].startswith("What is $2+2$?\n\n")
        and "boxed" in message["content"]
    )
    assert row["answer"] == "004" and set(row) == {"prompt", "answer"}
    assert (aime24.SOURCE.place, aime24.SOURCE.split) == ("HuggingFaceH4/aime_2024", "train")


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([{"problem": "?", "Answer": "4"}]))
    with pytest.raises(
        ValueError,
        match=r"'aime24' needs .* problem, answer, but row 0 of .*rows.json' lacks answer; it has problem, Answer",
    ):
        aime24.make_dataset(str(tmp_path / "rows.json"))


@pytest.mark.parametrize("answer, text, right", AIME_CASES)
def test_answers(answer, text, right):
    assert aime24.reward([[{"role": "assistant", "content": text}]], [answer]) == [float(right)]
