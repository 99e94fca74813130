"""PlanBench: its columns, the wording of its prompts, and plans by hand."""

import json

import pytest
from plan_cases import GOOD, PLAN_CASES, QUERIES

from trl_teamtr.tasks.planbench import task
from trl_teamtr.tasks.planbench.domains import DOMAINS


def row_of(domain):
    columns = {"task": "task_1_plan_generation", "prompt_type": "oneshot", "domain": domain, "instance_id": 2}
    return columns | {"example_instance_ids": [1], "query": QUERIES[domain], "ground_truth_plan": "..."}


def test_columns_of_the_hub(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([row_of(domain) for domain in QUERIES]))
    rows = task.make_dataset(str(tmp_path / "rows.json"))
    assert rows["domain"][:] == list(QUERIES)
    first = rows[0]
    assert first["prompt"][0]["content"].startswith("I am playing") and first["prompt"][0]["content"].endswith(
        task.INSTRUCTION
    )
    assert json.loads(first["goal"]) == [["on", "blue", "yellow"]]
    assert json.loads(first["initial"])[:4] == [
        ["clear", "red"],
        ["clear", "yellow"],
        ["handempty"],
        ["on", "red", "blue"],
    ]
    assert ["truck", "t0"] in json.loads(rows[2]["initial"]) and ["surface", "crate0"] in json.loads(
        rows[3]["initial"]
    )
    assert (task.SOURCE.place, task.SOURCE.config) == ("tasksource/planbench", "task_1_plan_generation")


def test_a_clone_of_the_repository(tmp_path):
    for domain in ("logistics", "blocksworld"):
        folder = tmp_path / "plan-bench" / "prompts" / domain
        folder.mkdir(parents=True)
        row = row_of(domain)
        content = {key: row.pop(key) for key in ("task", "prompt_type", "domain")} | {"instances": [row, row]}
        (folder / "task_1_plan_generation.json").write_text(json.dumps(content))
    assert task.make_dataset(str(tmp_path))["domain"][:] == ["blocksworld"] * 2 + ["logistics"] * 2
    assert task.make_dataset(str(tmp_path), domains=["logistics"])["domain"][:] == ["logistics"] * 2
    with pytest.raises(ValueError, match="no row of the domain.* depots"):
        task.make_dataset(str(tmp_path), domains=["depots"])
    with pytest.raises(ValueError, match="no domain chess. Choose of blocksworld"):
        task.make_dataset(str(tmp_path), domains=["chess"])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"domain": "freecell"}, "No simulator for PlanBench's domain 'freecell'"),
        ({"query": "Solve it."}, "As initial conditions I have that"),
        (
            {"query": QUERIES["blocksworld"].replace("the hand is empty", "the hand is full")},
            "'the hand is full' is none of the facts",
        ),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, change, message):
    (tmp_path / "rows.json").write_text(json.dumps([row_of("blocksworld") | change]))
    with pytest.raises(ValueError, match=message):
        task.make_dataset(str(tmp_path / "rows.json"))


@pytest.mark.parametrize("domain, text, right", PLAN_CASES)
def test_plans(domain, text, right, tmp_path):
    initial, goal = task.read_statement(DOMAINS[domain], QUERIES[domain])
    columns = {
        "domain": [domain],
        "initial": [json.dumps(initial + DOMAINS[domain].implied(initial))],
        "goal": [json.dumps(goal)],
    }
    assert task.reward([[{"role": "assistant", "content": text}]], **columns) == [float(right)]


def test_equal_plans_are_one_vote():
    row = {"domain": "blocksworld"}
    worded = task.read_answer(GOOD, row)
    assert (
        worded
        == task.read_answer("(unstack red blue)\n(put-down red)\n(pick-up blue)\n(stack blue yellow)", row)
        != ""
    )
    assert task.read_answer("no plan", row) == ""
