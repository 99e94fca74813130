"""The diagnostics that a configuration enables."""

import itertools
from typing import Any, TypeAlias

from datasets import Dataset, DatasetDict, IterableDataset

from ..checks.sampling_checks import check_branching
from .callback import DiagnosticsCallback, Probe
from .certificate_probe import CertificateProbe
from .message_values import MessageValueCallback
from .occupancy_probe import OccupancyProbe
from .watched import Watched


EvalDataset: TypeAlias = Dataset | IterableDataset | DatasetDict | dict | None


def add_diagnostics(trainer: Watched, eval_dataset: EvalDataset):
    """
    Add the diagnostics that the configuration of `trainer` enables.

    Args:
        trainer ([`Watched`]): The training.
        eval_dataset: Its evaluation dataset; if there are several, the first one is used.

    Raises:
        `ValueError`: If held-out prompts are needed, and there is no evaluation dataset; or rollouts cannot part where messages are
            to be valued.
    """
    args = trainer.args
    if probes := make_probes(trainer, eval_dataset):
        trainer.add_callback(DiagnosticsCallback(trainer, probes))
    if args.log_message_values:
        check_branching(trainer.team.settings.environments, f"`log_message_values={args.log_message_values}`")
        rows = _take(eval_dataset, args.log_message_values, f"`log_message_values={args.log_message_values}`")
        trainer.add_callback(MessageValueCallback(trainer, rows, args.message_value_rollouts))


def make_probes(trainer: Watched, eval_dataset: EvalDataset) -> list[Probe]:
    """
    The probes of `log_occupancy` and `log_certificate`.

    Args:
        trainer ([`Watched`]): The training.
        eval_dataset: Its evaluation dataset; if there are several, the first one is used.

    Raises:
        `ValueError`: If `log_certificate=True` and there is no evaluation dataset.
    """
    args, probes = trainer.args, list[Probe]()
    if args.log_occupancy:
        probes.append(OccupancyProbe(trainer))
    if args.log_certificate:
        rows = _take(eval_dataset, args.certificate_prompts, "`log_certificate=True`")
        probes.append(CertificateProbe(trainer, rows))
    return probes


def _take(eval_dataset: EvalDataset, number: int, option: str) -> list[dict[str, Any]]:
    """The first rows of the first evaluation dataset."""
    if eval_dataset is None:
        raise ValueError(
            f"{option} measures on held-out prompts, but there is no `eval_dataset`. Pass one to the trainer, or leave the option out."
        )
    dataset = next(iter(eval_dataset.values())) if isinstance(eval_dataset, dict) else eval_dataset
    return list(itertools.islice(dataset, number))
