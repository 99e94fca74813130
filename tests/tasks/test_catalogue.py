"""The benchmarks by name."""

from pathlib import Path

import pytest

from trl_teamtr.tasks import catalogue, loading, math500
from trl_teamtr.tasks.catalogue import BENCHMARKS, find_benchmark, is_stand_in, load_benchmark, reward_of
from trl_teamtr.tasks.reasoning_gym import reasoning_gym_reward


NAMES = "aime24 aime25 math500 zebralogic autologi arbench_gn arbench_sp arbench_dc planbench tau_airline tau_retail"


def test_all_tasks_of_the_paper_have_a_name_a_licence_and_a_scorer():
    assert list(BENCHMARKS) == NAMES.split()
    for name, benchmark in BENCHMARKS.items():
        assert loading.REWARDS[name] is benchmark.reward and loading.load_reward(name) is benchmark.reward
        if benchmark.source is not None:
            assert benchmark.source.name == name and benchmark.source.licence and benchmark.source.columns
        if benchmark.environment is not None:
            assert loading.load_function(benchmark.environment)
        assert BENCHMARKS[loading.default_reward(name)].reward is benchmark.reward


def test_stand_ins_are_generated_and_the_others_are_not():
    assert is_stand_in("zebralogic:synthetic") and not is_stand_in("zebralogic") and not is_stand_in("link:synthetic")
    assert loading.is_generated("aime24:synthetic") and not loading.is_generated("aime24")
    assert loading.is_undivided("aime24") and not loading.is_undivided("aime24:synthetic")
    assert not loading.is_undivided("tau_retail") and not loading.is_undivided("rows.jsonl")
    assert find_benchmark("aime24:synthetic") is BENCHMARKS["aime24"] and find_benchmark("rows.jsonl") is None
    assert (
        reward_of("planbench:synthetic") is reasoning_gym_reward and reward_of("math500:synthetic") is math500.reward
    )
    assert loading.default_reward("planbench:synthetic") == "reasoning_gym"


@pytest.mark.parametrize(
    "name, given, message",
    [
        (
            "arbench_sp:synthetic",
            {},
            "no 'arbench_sp:synthetic'. Use 'arbench_sp', or one of the stand-ins: aime24:synthetic",
        ),
        ("aime24:2", {}, "There is no 'aime24:2'"),
        ("aime24:synthetic", {"dataset_path": "x"}, "is generated: leave out dataset_path"),
        ("tau_retail", {"dataset_path": "x", "revision": "y"}, "inspect-evals: leave out dataset_path and revision"),
        ("arbench_dc", {}, "not on the hub. Clone https://github.com/tmlr-group/AR-Bench"),
    ],
)
def test_what_makes_no_sense_is_refused(name, given, message):
    with pytest.raises(ValueError, match=message):
        load_benchmark(name, "train", 2, 0, **given)


def test_a_path_is_for_benchmarks():
    with pytest.raises(ValueError, match="`dataset_path` is for aime24, .*. Set `dataset_name` to the path itself"):
        loading.load_split("link:2", "train", 2, 0, dataset_path="x")
    assert len(loading.load_split("link:2", "train", 2, 0, dataset_path=None)) == 2


def test_votes_are_read_as_the_scorer_reads():
    assert catalogue.answer_reader([math500.reward]) is math500.read_answer
    assert catalogue.answer_reader([print]) is None


def test_domains_of_tau_have_splits(monkeypatch):
    asked = []
    retail = catalogue.Benchmark(lambda split: asked.append(split), reward=print)
    monkeypatch.setitem(catalogue.BENCHMARKS, "tau_retail", retail)
    loading.load_split("tau_retail", "test", 2, 0)
    assert asked == ["test"]


def test_the_page_has_a_row_for_each_task():
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    rows = {line.split("|")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for name, benchmark in BENCHMARKS.items():
        (row,) = [line for key, line in rows.items() if f"`{name}`" in key]
        assert len(row.split("|")) == 8
        if benchmark.source is not None:
            assert benchmark.source.place in row and f"| {benchmark.source.licence} |" in row
        if benchmark.stand_in is not None:
            assert f"`{name}:synthetic`" in row
