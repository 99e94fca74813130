"""Agents whose updates leave them as they were: training that stands still."""

import warnings
from collections import Counter

from ..trust_region.update import UpdateReport


class IdleWatch:
    """
    Counts, for each agent, its idle updates in a row.

    Args:
        patience (`int`, *optional*): Number of idle updates of one agent in a row that end the run; `None` for no limit.
    """

    def __init__(self, patience: int | None):
        self._patience = patience
        self._in_a_row: Counter[str] = Counter()

    def look(self, name: str, report: UpdateReport, radius: float | None, learning_rate: float, dtype: str):
        """
        Count the update of agent `name`, and warn if it was idle.

        Args:
            name (`str`): The agent.
            report ([`UpdateReport`]): Its update.
            radius (`float`, *optional*): δ, in nats per message.
            learning_rate (`float`): That of the update.
            dtype (`str`): Of its trainable weights.

        Raises:
            `RuntimeError`: If as many in a row were idle as are allowed.
        """
        if not report.idle:
            self._in_a_row[name] = 0
            return
        self._in_a_row[name] += 1
        text = f"{_cause(report, radius, learning_rate, dtype)} {_remedy(report, learning_rate, dtype)}"
        if self._in_a_row[name] == self._patience:
            raise RuntimeError(
                f"The last {self._patience} updates of agent {name!r} have changed nothing, although some advantages were not "
                f"0. {text} Or allow more of them with `max_idle_updates`."
            )
        warnings.warn(f"An update of agent {name!r} has changed nothing. {text}", stacklevel=2)


def _cause(report: UpdateReport, radius: float | None, learning_rate: float, dtype: str) -> str:
    if report.rejected:
        return (
            f"It was rejected: its KL was {report.kl_proposed:.3g} nats per message, and after {report.backtracks} halvings "
            f"of the step still above the radius, {radius:.3g}."
        )
    if report.backtracks:
        return (
            f"Its KL was {report.kl_proposed:.3g} nats per message; {report.backtracks} halvings of the step, to come within "
            f"the radius, {radius:.3g}, have left the {dtype} weights as they were."
        )
    if report.inner_steps == 0:
        return "It made no step: `mask_truncated_completions` left out all of its messages, which were not finished."
    return f"A step with learning rate {learning_rate:.3g} was too small to change the {dtype} weights."


def _remedy(report: UpdateReport, learning_rate: float, dtype: str) -> str:
    if report.inner_steps == 0:
        return "Raise `max_completion_length`, or do not mask."
    if learning_rate == 0 and not report.rejected:
        return "The learning rate is 0: set `learning_rate`, or another schedule."
    weights = (
        "" if dtype == "float32" else "Load the model with `model_init_kwargs={'dtype': 'float32'}` or use LoRA, or "
    )
    if not (report.rejected or report.backtracks):
        return f"{weights}{'raise' if weights else 'Raise'} the learning rate."
    return f"{weights}{'use' if weights else 'Use'} a smaller learning rate or a larger `trust_region_radius`."
