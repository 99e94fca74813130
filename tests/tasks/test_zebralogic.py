"""ZebraLogic: its columns, and answers by hand."""

import json

import pytest
from datasets import Dataset

from trl_teamtr.tasks import zebralogic


SOLUTION = {"header": ["House", "Name", "Drink"], "rows": [["1", "Ann", "tea"], ["2", "Bo", "milk"]]}
ROW = {
    "id": "lgp-test-2x2-0",
    "size": "2*2",
    "puzzle": "There are 2 houses.",
    "solution": SOLUTION,
    "created_at": "2024",
}
GRID = json.dumps({"House 1": {"Name": "Ann", "Drink": "tea"}, "House 2": {"Name": "Bo", "Drink": "milk"}})


def say(first, second, reasoning="because", **more):
    return json.dumps({"reasoning": reasoning, "solution": {"House 1": first, "House 2": second}} | more)


ANN, BO = {"Name": "Ann", "Drink": "tea"}, {"Name": "Bo", "Drink": "milk"}
RIGHT, WRONG = say(ANN, BO), say({"Name": "Bo", "Drink": "milk"}, {"Name": "Ann", "Drink": "tea"})


@pytest.mark.parametrize("extension", ["parquet", "json"])
def test_columns(tmp_path, extension):
    path = str(tmp_path / f"rows.{extension}")
    if extension == "parquet":
        Dataset.from_list([ROW]).to_parquet(path)
    else:
        (tmp_path / "rows.json").write_text(json.dumps([ROW]))
    (row,) = zebralogic.make_dataset(path)
    assert json.loads(row["grid"]) == json.loads(GRID)
    prompt = row["prompt"][0]["content"]
    assert prompt.startswith("There are 2 houses.") and '"House 2": {' in prompt and "milk" not in prompt
    source = zebralogic.SOURCE
    assert (source.place, source.config, source.split) == ("WildEval/ZebraLogic", "grid_mode", "test")


def test_hidden_solutions_are_refused(tmp_path):
    hidden = SOLUTION | {"rows": [["___"] * 3, ["___"] * 3]}
    (tmp_path / "rows.json").write_text(json.dumps([ROW | {"solution": hidden}]))
    with pytest.raises(ValueError, match="hidden .*WildEval/ZebraLogic"):
        zebralogic.make_dataset(str(tmp_path / "rows.json"))


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([ROW, {"puzzle": "?"}]))
    with pytest.raises(ValueError, match="row 1 of .* lacks solution"):
        zebralogic.make_dataset(str(tmp_path / "rows.json"))


@pytest.mark.parametrize(
    "text, cells",
    [
        (RIGHT, 1.0),
        (WRONG, 0.0),
        (f"I think it is {WRONG}. No: {RIGHT}", 1.0),  # JSON twice: the last one counts
        (f"{RIGHT}\n{WRONG}", 0.0),
        (f"{RIGHT}\nThat is it.", 1.0),
        (f"```json\n{RIGHT}\n```", 1.0),
        (f"<think>{WRONG}</think>{RIGHT}", 1.0),
        (f"<think>{RIGHT}</think>I do not know.", 0.0),  # in thoughts only
        (f"<think>{RIGHT}", 0.0),
        (f"{RIGHT}</think>{WRONG}", 0.0),
        (say(ANN, {"Name": "Bo", "Drink": "tea"}), 0.75),
        (say(ANN, {"Name": "Bo"}), 0.75),
        (say(ANN, {}), 0.5),
        (say(ANN, None), 0.5),
        (say(ANN, "Bo"), 0.5),
        (say({"name": "Ann", "drink": "tea"}, BO), 0.5),  # names of attributes are as given
        (say({"Name": " ANN ", "Drink": "Tea"}, BO), 1.0),
        (say({"Name": ["Ann"], "Drink": "tea"}, BO), 1.0),
        (say({"Name": ["Bo", "Ann"], "Drink": "tea"}, BO), 0.75),
        (say({"Name": [], "Drink": "tea"}, BO), 0.75),
        (say({"Name": None, "Drink": "tea"}, BO), 0.75),
        (say({"Name": 1, "Drink": "tea"}, BO), 0.75),
        (say({"Name": "Ann", "Drink": "tea", "Pet": "cat"}, BO), 1.0),
        (say({"Name": "___", "Drink": "___"}, BO), 0.5),
        (say(ANN, BO, note="{}"), 1.0),
        (say(ANN, BO, reasoning='{"solution": 1}'), 1.0),
        (json.dumps({"solution": {"House 1": ANN, "House 2": BO, "House 3": BO}}), 1.0),
        (json.dumps({"House 1": ANN, "House 2": BO}), 0.0),  # without `solution`
        (json.dumps({"solution": None}), 0.0),
        (json.dumps({"solution": [ANN, BO]}), 0.0),
        (json.dumps({"Solution": {"House 1": ANN, "House 2": BO}}), 0.0),
        (RIGHT[:-1], 0.0),  # cut off: what is complete of it has no `solution`
        (RIGHT[: len(RIGHT) // 2], 0.0),
        ("House 1: Ann, tea; House 2: Bo, milk", 0.0),
        ("", 0.0),
        ("[]", 0.0),
        ("{}", 0.0),
    ],
)
def test_answers(text, cells):
    assert zebralogic.reward([[{"role": "assistant", "content": text}]], [GRID]) == [cells]


def test_equal_solutions_are_one_vote():
    one, other = RIGHT, json.dumps({"solution": {"House 2": BO, "House 1": ANN}})
    assert zebralogic.read_answer(one, {}) == zebralogic.read_answer(other, {}) != zebralogic.read_answer(WRONG, {})
    assert zebralogic.read_answer("no", {}) == zebralogic.read_answer("{}", {}) == ""
