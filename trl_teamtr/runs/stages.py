"""The plan of a run: how many stages it has, on which rows, in which order of the agents."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader
from transformers.trainer_utils import has_length


def count_stages(dataloader: DataLoader, args: Any, num_agents: int) -> tuple[int | None, int]:
    """
    Number of stages in an epoch (`None` for a stream), and number of updates in the run.

    Args:
        dataloader ([`~torch.utils.data.DataLoader`]): TRL's, which repeats each batch for its micro-batches.
        args (`TeamTRConfig`): The lead's, where `num_stages` has become `max_steps`.
        num_agents (`int`): Number of trainable agents.

    Raises:
        `ValueError`: If the dataset is too small for one stage; if a stream has no number of stages, or something is
            scheduled at the end of each of its epochs.
    """
    by_epoch = [
        name for name in ("eval_strategy", "save_strategy", "logging_strategy") if getattr(args, name) == "epoch"
    ]
    if by_epoch and not has_length(dataloader):
        raise ValueError(
            f"{', '.join(by_epoch)} is 'epoch', but the ends of a stream's epochs are not known. Use 'steps', which "
            "counts updates."
        )
    per_epoch = len(dataloader) // args.steps_per_generation if has_length(dataloader) else None
    if per_epoch == 0:
        dataset: Any = dataloader.dataset
        raise ValueError(
            f"The train dataset has {len(dataset)} rows, but one stage needs {args.generation_batch_size // args.num_generations} prompts "
            f"(`generation_batch_size` {args.generation_batch_size} / `num_generations` {args.num_generations}). Use "
            "more rows, or a smaller batch."
        )
    if args.max_steps > 0:
        return per_epoch, args.max_steps
    if per_epoch is None:
        raise ValueError("The train dataset is a stream, which has no length. Set `num_stages` or `max_steps`.")
    return per_epoch, math.ceil(args.num_train_epochs * per_epoch) * num_agents


def ends_epoch(step: int, max_steps: int, updates_per_epoch: int | None) -> bool:
    """Whether an epoch, or the run, ends with update `step` (from 1). For a stream the run is the only epoch."""
    return step >= max_steps or (updates_per_epoch is not None and step % updates_per_epoch == 0)


def stage_rows(dataloader: DataLoader, repeats: int) -> Iterator[list[dict[str, Any]]]:
    """
    The rows of each stage, epoch after epoch: every `repeats`-th batch of `dataloader`.

    Raises:
        `ValueError`: If an epoch of a stream is too short for one stage.
    """
    for epoch in itertools.count():
        stages = 0
        for rows in itertools.islice(dataloader, 0, None, repeats):
            stages += 1
            yield rows
        if stages == 0:
            raise ValueError(
                f"Epoch {epoch} of the train dataset, a stream, ended before it had the rows of one stage. Check its "
                "filters, or use a smaller batch."
            )


def order_agents(agents: Sequence[Any], kind: str, seed: int, stage: int) -> list[Any]:
    """
    The order σ of a stage. A random one is a function of the seed and the stage, the same in a resumed run.

    Args:
        agents (`Sequence`): The trainable agents, in team order.
        kind (`str`): `"sequential"`, `"reversed"` or `"random"`.
        seed, stage (`int`): Seed of the run, and number of the stage.
    """
    order = list(reversed(agents)) if kind == "reversed" else list(agents)
    if kind == "random":
        random.Random(f"{seed}/{stage}").shuffle(order)
    return order
