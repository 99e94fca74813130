"""Stand-ins: the columns and scorers of the benchmarks, and answers that are right exactly where they should be."""

import ast
import itertools
import json
import re

import pytest

from trl_teamtr.tasks import synthetic
from trl_teamtr.tasks.catalogue import BENCHMARKS, load_benchmark, reward_of


def columns(rows):
    return {name: rows[name][:] for name in rows.column_names if name != "prompt"}


@pytest.mark.parametrize("name", ["aime24", "aime25", "math500"])
def test_mathematics(name):
    rows = load_benchmark(f"{name}:synthetic", "train", 8, 0)
    assert rows.column_names == ["prompt", "answer"] and "boxed" in rows[0]["prompt"][0]["content"]
    score = BENCHMARKS[name].reward
    assert score([f"\\boxed{{{answer}}}" for answer in rows["answer"]], **columns(rows)) == [1.0] * 8
    assert score(["\\boxed{-123456}"] * 8, **columns(rows)) == [0.0] * 8


def test_zebras():
    rows = load_benchmark("zebralogic:synthetic", "train", 4, 0, num_people=2, num_characteristics=3)
    assert rows.column_names == ["prompt", "grid"]
    right = [json.dumps({"solution": json.loads(grid)}) for grid in rows["grid"]]
    assert BENCHMARKS["zebralogic"].reward(right, **columns(rows)) == [1.0] * 4
    assert max(BENCHMARKS["zebralogic"].reward(right[1:] + right[:1], **columns(rows))) < 1.0
    assert synthetic.zebras(4, 0, 2, 3).to_list() == rows.to_list() != synthetic.zebras(4, 9, 2, 3).to_list()


def test_knights_and_knaves_have_one_solution_each():
    rows = load_benchmark("autologi:synthetic", "train", 3, 0, n_people=2)
    for row in rows:
        names, _, words = ast.literal_eval(re.search(r"NAMES, SAID, WORDS = (.*)", row["checks"])[1])
        texts = [str(dict(zip(names, own, strict=True))) for own in itertools.product(words, repeat=2)]
        assert sum(BENCHMARKS["autologi"].reward(texts, [row["checks"]] * 4)) == 1
        assert names[0] in row["prompt"][0]["content"] and "```python" in row["prompt"][0]["content"]


@pytest.mark.parametrize("game", ["tower_of_hanoi", "sokoban"])
def test_plans(game):
    rows = load_benchmark("planbench:synthetic", "train", 2, 0, game=game)
    score = reward_of("planbench:synthetic")
    assert score(rows["answer"][:], **columns(rows)) == [1.0, 1.0]
    assert max(score([rows["answer"][0][:-2], "nothing"], **columns(rows))) < 1.0


def test_numbers():
    rows = load_benchmark("arbench_gn:synthetic", "train", 3, 0)
    assert rows.column_names == ["prompt", "secret", "alphabet"]
    assert BENCHMARKS["arbench_gn"].reward(rows["secret"][:], **columns(rows)) == [1.0] * 3
