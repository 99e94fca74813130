"""Totals of a run are sums over its updates, however seldom it logs."""

import pytest

from trl_teamtr.reports.run_totals import sum_up


def update(step, name, seconds=1.0, tokens=10, **own):
    values = {"kl": 0.01, "radius": 0.02, "rejected": 0.0, "backtracks": 0.0, "loss": 0.0} | own
    shared = {"step": step, "reward": 0.5, "seconds/rollouts": seconds, "seconds/update": 2.0}
    shared |= {"rollout/tokens_decoded": tokens, "rollout/tokens_scored": 5, "rollout/reused_fraction": 0.5}
    return shared | {f"agent/{name}/{key}": value for key, value in values.items()}


def test_every_update_is_logged():
    logs = [{"step": 0, "eval_reward": 0.1}, update(1, "a", backtracks=2.0), update(2, "b", kl=0.0, rejected=1.0)]
    logs += [update(3, "a", kl=0.02, kl_floor=1e-6), {"step": 3, "eval_reward": 0.2, "eval_runtime": 9.0}]
    found = sum_up(logs, ["a", "b"])
    assert (found["updates"], found["tokens_decoded"], found["tokens_scored"], found["reused"]) == (3, 30, 15, 0.5)
    assert found["seconds"] == {"rollouts": 3.0, "scoring": 0, "update": 6.0}
    a, b = found["agents"]["a"], found["agents"]["b"]
    assert (a["updates"], a["rejected"], a["backtracks"], a["kl_floor"], a["radius"]) == (2, 0, 2, 1e-6, 0.02)
    assert a["kl_mean"] == pytest.approx(0.015) and a["kl_max"] == 0.02
    assert (b["updates"], b["rejected"], b["kl_mean"], b["kl_max"]) == (1, 1, None, None)


def test_a_log_of_several_updates_counts_for_all_of_them():
    both = update(4, "a", seconds=1.5, rejected=0.5) | {
        key: value for key, value in update(4, "b").items() if key.startswith("agent/")
    }
    found = sum_up([both, both | {"step": 8}], ["a", "b"])
    assert found["updates"] == 8 and found["seconds"]["rollouts"] == 12.0 and found["tokens_decoded"] == 80
    assert [found["agents"][name]["updates"] for name in "ab"] == [4, 4] and found["agents"]["a"]["rejected"] == 2


def test_without_a_radius_and_without_logs():
    log = {"step": 1, "reward": 0.5, "agent/a/loss": 0.1}
    own = sum_up([log], ["a"])["agents"]["a"]
    assert (own["updates"], own["kl_mean"], own["radius"], own["rejected"]) == (1, None, None, 0)
    assert sum_up([], [])["updates"] == 0
