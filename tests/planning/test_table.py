"""A plan as text."""

import re
from pathlib import Path

import pytest

from trl_teamtr.planning.memory import KINDS, Phase
from trl_teamtr.planning.table import memory_lines, time_lines


@pytest.mark.parametrize("on_cpu, columns", [(True, [*KINDS, "host", "total"]), (False, [*KINDS, "device", "host"])])
def test_each_kind_has_a_column_in_one_unit_and_what_does_not_fit_is_marked(on_cpu, columns):
    phases = [Phase("rollouts", "x", weights=2**30, host=2**29), Phase("update", "y", weights=2**30, moments=2**31)]
    heading, first, second = memory_lines(phases, 2**31, on_cpu)
    assert heading.split() == ["GiB", *columns, "agent"]
    assert first.split()[:2] == ["rollouts", "1.00"] and first.split()[-1] == "x"
    assert second.endswith("y  does not fit") and "does not fit" not in first
    assert "does not fit" not in "".join(memory_lines(phases, None, on_cpu))


def test_small_plans_are_in_mebibytes():
    assert memory_lines([Phase("update", "x", weights=2**20)], None, True)[0].startswith("MiB")


def test_the_time_of_a_stage_is_the_sum_of_its_parts():
    (line,) = time_lines({"rollouts": 1.5, "updates": 2.0}, "cpu")
    assert line == "seconds of a stage on cpu: rollouts 1.5, updates 2, together 3.5"


def test_the_plans_in_the_docs_are_those_that_the_benchmark_printed():
    docs = Path(__file__).parents[2] / "docs"
    printed = (docs / "results" / "plan_large.txt").read_text()
    plans = re.findall(r"```text\n(Plan for .*?)```", (docs / "distributed.md").read_text(), flags=re.DOTALL)
    assert len(plans) == 2 and all(plan in printed for plan in plans)
