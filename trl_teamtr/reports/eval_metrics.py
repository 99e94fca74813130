"""The metrics of an evaluation beside TRL's, and their names."""

from transformers import TrainerState

from ..maths.evaluation_metrics import regression_rate, stability


PREFIX = "eval_"


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
