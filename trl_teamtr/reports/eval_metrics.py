"""The metrics of an evaluation beside TRL's, and their names."""

import math
import statistics

import torch
from transformers import TrainerState

from ..maths.evaluation_metrics import regression_rate, stability


PREFIX = "eval_"
# Where the metrics of an evaluation keep the mean return of each prompt, until there is an interval of them
_BY_PROMPT = "team/reward_by_prompt"


def add_returns(metrics: dict[str, list[float]], returns: torch.Tensor, group: int):
    """
    Note the mean return of each prompt of a batch, for [`add_interval`].

    Args:
        metrics (`dict[str, list[float]]`): TRL's, of an evaluation; changed in place.
        returns (`torch.Tensor` of shape `(rows of all processes,)`): NaN where there is none.
        group (`int`): Number of rollouts of a prompt, which are consecutive.
    """
    means = returns.view(-1, group).nanmean(dim=1).tolist()
    metrics[_BY_PROMPT] += [mean for mean in means if not math.isnan(mean)]


def add_interval(metrics: dict[str, list[float]]):
    """
    Add `reward_interval`, half the width of the 95 % interval of the mean return over other prompts of the kind: 1.96
    standard errors. With fewer than two prompts there is none.

    Args:
        metrics (`dict[str, list[float]]`): TRL's, of an evaluation; changed in place.
    """
    means = metrics.pop(_BY_PROMPT, [])
    if len(means) > 1:
        metrics["reward_interval"] = [1.96 * statistics.stdev(means) / math.sqrt(len(means))]


def add_history(metrics: dict[str, list[float]], prefix: str, state: TrainerState):
    """
    Add statistics of the evaluations so far, this one included, from the second one on: `stability`, the standard
    deviation of the last six, and `team/regression_rate`, the share of the changes that are negative.

    Args:
        metrics (`dict[str, list[float]]`): TRL's, of this evaluation; changed in place.
        prefix (`str`): The `metric_key_prefix` of the evaluation.
        state ([`~transformers.TrainerState`]): For its log of the previous evaluations.
    """
    if "reward" not in metrics:
        return
    key = f"{prefix}_reward"
    by_step = {log["step"]: log[key] for log in state.log_history if key in log}
    # Another evaluation of the same weights, as before and at the start of a training, is not a change
    by_step[state.global_step] = sum(metrics["reward"]) / len(metrics["reward"])
    evaluations = list(by_step.values())
    if len(evaluations) > 1:
        metrics["stability"] = [stability(evaluations)]
        metrics["team/regression_rate"] = [regression_rate(evaluations)]


def name_by_dataset(metrics: dict[str, list[float]], prefix: str):
    """
    Prefix the metrics that TRL logs as `eval_{name}` with the dataset's name, as transformers does with its own: with
    `eval_dataset={"easy": ...}`, `eval_easy_reward`. Otherwise all datasets would be logged under the same names.

    Args:
        metrics (`dict[str, list[float]]`): TRL's, of an evaluation; changed in place.
        prefix (`str`): The `metric_key_prefix` of the evaluation: `"eval"`, or `"eval_{dataset}"`.
    """
    if prefix.startswith(PREFIX):
        named = {f"{prefix.removeprefix(PREFIX)}_{name}": values for name, values in metrics.items()}
        metrics.clear()
        metrics.update(named)
