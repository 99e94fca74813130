"""The names of metrics where there are several evaluation datasets."""

PREFIX = "eval_"


def name_by_dataset(metrics: dict[str, list[float]], prefix: str):
    """
    Put the dataset's name in front of what TRL is about to log as `eval_{name}`, as transformers does with its own: with
    `eval_dataset={"easy": ...}`, `eval_easy_reward`. Otherwise the last dataset's reward would stand for all of them.

    Args:
        metrics (`dict[str, list[float]]`): TRL's, of an evaluation; changed in place.
        prefix (`str`): The `metric_key_prefix` of the evaluation: `"eval"`, or `"eval_{dataset}"`.
    """
    if prefix.startswith(PREFIX):
        named = {f"{prefix.removeprefix(PREFIX)}_{name}": values for name, values in metrics.items()}
        metrics.clear()
        metrics.update(named)
