import math

from trl_teamtr.reports.agent_metrics import agent_metrics, count_values
from trl_teamtr.trust_region.update import UpdateReport


def test_only_what_an_update_has_added_is_its_agents():
    metrics = {"entropy": [1.0], "reward": [0.5], "completions/mean_length": [8.0]}
    before = count_values(metrics)
    metrics["entropy"] += [3.0, math.nan, 5.0]
    metrics["reward"].append(0.7)
    metrics["clip_ratio/low_mean"] = [0.25]
    found = agent_metrics(metrics, before, UpdateReport(loss=2.0, grad_norm=3.0), 1e-3)
    assert found == {
        "loss": 2.0,
        "grad_norm": 3.0,
        "learning_rate": 1e-3,
        "entropy": 4.0,
        "clip_ratio/low_mean": 0.25,
    }
