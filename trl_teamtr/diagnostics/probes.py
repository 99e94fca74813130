"""The diagnostics that a configuration enables."""

import itertools

from datasets import Dataset, DatasetDict, IterableDataset

from .callback import Probe
from .certificate_probe import CertificateProbe
from .occupancy_probe import OccupancyProbe
from .watched import Watched


def make_probes(trainer: Watched, eval_dataset: Dataset | IterableDataset | DatasetDict | dict | None) -> list[Probe]:
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
        if eval_dataset is None:
            raise ValueError(
                "`log_certificate=True` measures improvement on held-out prompts, but there is no `eval_dataset`. Pass "
                "one to the trainer, or leave `log_certificate=False`."
            )
        dataset = next(iter(eval_dataset.values())) if isinstance(eval_dataset, dict) else eval_dataset
        probes.append(CertificateProbe(trainer, list(itertools.islice(dataset, args.certificate_prompts))))
    return probes
