"""The table over several tasks."""

import pytest

from trl_teamtr.evaluation.task_table import format_task_table


def figures(accuracy, **more):
    found = {
        "num_tasks": 30,
        "num_samples": 4,
        "accuracy": accuracy,
        "interval": [0.1, 0.75],
        "reward": 0.5,
        "tokens": 12.25,
    }
    return found | {"pass_at_k": {"1": accuracy, "4": 0.9}} | more


def test_a_line_for_each_task_and_protocol():
    tasks = {
        "aime24": {"protocols": {"team": figures(0.25), "best_of_n": figures(0.5)}},
        "arbench_sp": {"protocols": {"team": figures(0.0, reward=0.4)}},
    }
    table = format_task_table(tasks, ["arbench_sp"]).splitlines()
    assert [line.split() for line in table[:4]] == [
        ["task", "protocol", "rows", "pass@1", "pass@4", "avg@4", "95", "%", "interval", "reward", "tokens/episode"],
        ["aime24", "team", "30", "0.250", "0.900", "0.250", "[0.100,", "0.750]", "0.500", "12.2"],
        ["aime24", "best_of_n†", "30", "0.500", "0.900", "0.500", "[0.100,", "0.750]", "0.500", "12.2"],
        ["arbench_sp*", "team", "30", "-", "-", "-", "-", "0.400", "12.2"],
    ]
    assert len({len(line) for line in table[:4]}) == 1
    assert table[4].startswith("* its measure is the mean reward") and table[5].startswith("† chosen by the reward")


def test_keys_may_be_numbers_and_notes_are_left_out_where_they_do_not_apply():
    found = figures(1.0) | {"pass_at_k": {1: 1.0}}
    assert format_task_table({"x": {"protocols": {"team": found}}}).count("\n") == 1


def test_nothing_is_no_table():
    with pytest.raises(ValueError, match="no results"):
        format_task_table({})
