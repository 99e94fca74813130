"""Rows of published benchmarks: from files, clones and the hub, and what is refused."""

import json

import pytest
from datasets import Dataset

from trl_teamtr.tasks import published
from trl_teamtr.tasks.published import Source, as_dataset


SOURCE = Source(
    "task", "owner/data", ("question", "answer"), "MIT", split="test", config="main", files=("data/*.jsonl",)
)
ROWS = [{"question": "a?", "answer": "1", "other": 0}, {"question": "b?", "answer": "2", "other": 1}]


@pytest.mark.parametrize("extension", ["json", "jsonl", "parquet", "csv"])
def test_files(tmp_path, extension):
    path = tmp_path / f"rows.{extension}"
    if extension == "json":
        path.write_text(json.dumps(ROWS))
    elif extension == "jsonl":
        path.write_text("\n\n".join(map(json.dumps, ROWS)))
    else:
        getattr(Dataset.from_list(ROWS), f"to_{extension}")(str(path))
    assert [row["question"] for row in SOURCE.read(str(path))] == ["a?", "b?"]


def test_a_clone_has_all_its_files_in_order(tmp_path):
    (tmp_path / "data").mkdir()
    for name, row in zip("yx", ROWS, strict=True):
        (tmp_path / "data" / f"{name}.jsonl").write_text(json.dumps(row))
    assert SOURCE.read(str(tmp_path)) == ROWS[::-1]


def test_the_hub(monkeypatch):
    asked = []
    monkeypatch.setattr(published, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or ROWS)
    assert SOURCE.read(revision="v1") == ROWS
    assert asked == [(("owner/data", "main"), {"split": "test", "revision": "v1"})]


@pytest.mark.parametrize(
    "content, message",
    [
        (
            [{"question": "a?"}],
            "'task' needs the column.s. question, answer, but row 0 of .*rows.json' lacks answer; it has question",
        ),
        ([ROWS[0], {}], "row 1 of .* lacks question, answer; it has "),
        ([], "rows.json' is empty"),
    ],
)
def test_missing_columns_are_named(tmp_path, content, message):
    (tmp_path / "rows.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        SOURCE.read(str(tmp_path / "rows.json"))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="a clone of owner/data with data/.*jsonl, or a .json"):
        SOURCE.read(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SOURCE.read(str(tmp_path / "nowhere"))
    (tmp_path / "rows.txt").write_text("")
    with pytest.raises(ValueError, match="rows.txt' is none of .json, .jsonl, .parquet and .csv"):
        SOURCE.read(str(tmp_path / "rows.txt"))


def test_prompts_become_conversations():
    rows = as_dataset([{"prompt": "a?", "answer": "1"}], "Think.")
    assert rows[0] == {"prompt": [{"role": "user", "content": "a?\n\nThink."}], "answer": "1"}
    assert as_dataset([{"prompt": "a?"}])[0]["prompt"][0]["content"] == "a?"
