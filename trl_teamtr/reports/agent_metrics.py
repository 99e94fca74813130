"""What TRL logs of the updated agent, under the agent's own name too: `agent/{name}/entropy`."""

import math

from ..trust_region.update import UpdateReport


# TRL's names, or what they begin with
_OF_AGENT = ("entropy", "clip_ratio/", "completions/")


def count_values(metrics: dict[str, list[float]]) -> dict[str, int]:
    """The number of values of each metric so far, for [`agent_metrics`]."""
    return {key: len(values) for key, values in metrics.items()}


def agent_metrics(
    metrics: dict[str, list[float]], before: dict[str, int], report: UpdateReport, learning_rate: float
) -> dict[str, float]:
    """
    Metrics of the agent that has just been updated, whose names have no agent in TRL.

    Args:
        metrics (`dict[str, list[float]]`): TRL's, not logged yet; those of earlier updates come first.
        before (`dict[str, int]`): [`count_values`] before the update.
        report ([`UpdateReport`]): The result of the update.
        learning_rate (`float`): That of the update.
    """
    found = {"loss": report.loss, "grad_norm": report.grad_norm, "learning_rate": learning_rate}
    for key, values in metrics.items():
        own = [value for value in values[before.get(key, 0) :] if not math.isnan(value)]
        if key.startswith(_OF_AGENT) and own:
            found[key] = sum(own) / len(own)
    return found
