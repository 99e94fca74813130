"""The report of the quickstart; the script itself: tests/cli/test_scripts.py."""

from types import SimpleNamespace

from trl_teamtr.cli.quickstart import show, summarize


def log(name, kl, rejected=0, backtracks=0, reward=0.5):
    own = {"kl": kl, "rejected": rejected, "backtracks": backtracks}
    return {f"agent/{name}/{key}": value for key, value in own.items()} | {"reward": reward}


def test_figures_are_those_of_the_logs():
    trainer = SimpleNamespace(team=SimpleNamespace(names=("a", "b")), trained_members=["a", "b"], radius=0.02)
    logs = [{"eval_reward": 0.1}, log("a", 0.01, reward=0.2), log("b", 0.03, backtracks=2, reward=0.4)]
    logs += [log("a", 0.0, rejected=1, reward=0.6), {"eval_reward": 0.9}]
    found = summarize(trainer, logs, SimpleNamespace(out_of_region_rate=0.25))
    assert (found["accuracy_before"], found["accuracy_after"]) == (0.1, 0.9)
    assert (found["updates"], found["rejected"], found["backtracked"]) == (3, 1, 1)
    assert found["out_of_region"] == 0.5 and found["out_of_region_heldout"] == 0.25 and found["kl_mean"] == 0.02
    assert summarize(trainer, logs, None)["out_of_region_heldout"] is None


def test_transcripts_are_shown_with_what_is_private(capsys):
    show("After", [{"prompt": "?", "private": {"a": "1"}, "messages": ["a: 1B"]}])
    assert capsys.readouterr().out == "\nAfter\n  task: '?'   (private: {'a': '1'})\n    'a: 1B'\n"
