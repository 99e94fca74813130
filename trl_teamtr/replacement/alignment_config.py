"""The options of a replacement: what of the protocol is unified, and how the new member is aligned."""

import json
from dataclasses import dataclass, field
from typing import Any

from ..options.checking import check


OBJECTIVES = ("ce", "kl")


@dataclass
class AlignmentConfig:
    r"""
    Options of [`replace_member`], [`add_member`] and the command `trl-teamtr replace`.

    Parameters:
        > Parameters that control what of the protocol is unified, each a switch

        take_system_prompt (`bool`, *optional*, defaults to `True`):
            Whether the new member takes over the system prompt of the old one.
        thoughts_off (`bool`, *optional*, defaults to `True`):
            Whether the new member's chat template is told to leave out thoughts, by `thoughts_off_kwargs`.
        thoughts_off_kwargs (`dict`, *optional*, defaults to `{"enable_thinking": False}`):
            How the chat template is told.
        map_calls (`bool`, *optional*, defaults to `True`):
            Whether calls of tools in the demonstrations are written as the new member's template writes them, rather than as
            the old one wrote them.
        align (`bool`, *optional*, defaults to `True`):
            Whether the new member is trained on the messages of the old one before it takes its place.

        > Parameters that control the demonstrations

        num_probes (`int`, *optional*, defaults to `500`):
            Maximum number of probe prompts on which the old team talks.
        held_out_fraction (`float`, *optional*, defaults to `0.2`):
            Share of the probe prompts that are kept out of the training, for early stopping and for what is measured.
        generation_batch_size (`int`, *optional*, defaults to `64`):
            Number of conversations held together.

        > Parameters that control the training of the new member, by TRL's `SFTTrainer`

        objective (`str`, *optional*, defaults to `"ce"`):
            `"ce"`: the cross-entropy of the old member's messages, whose expected gradient is that of the KL. `"kl"`: the KL of
            the next-token distributions over the whole vocabulary, where both members have the same one.
        learning_rate (`float`, *optional*, defaults to `2e-5`):
            Learning rate.
        lr_scheduler_type (`str`, *optional*, defaults to `"constant"`):
            Schedule of the learning rate.
        num_train_epochs (`float`, *optional*, defaults to `3.0`):
            Maximum number of epochs.
        per_device_train_batch_size, gradient_accumulation_steps (`int`, *optional*, defaults to `8` and `1`):
            Conversations in a step.
        eval_steps (`int`, *optional*, defaults to `10`):
            Number of steps between two measurements on the held-out probes.
        early_stopping_patience (`int`, *optional*, defaults to `3`):
            Number of measurements without an improvement after which training stops. The best weights are kept.
        bf16, gradient_checkpointing, use_cpu (`bool`, *optional*):
            As in [`~trl.SFTConfig`]; `bf16` and `gradient_checkpointing` default to `False`.
        seed (`int`, *optional*, defaults to `42`):
            Seed of the split, the talks and the training.

        > Parameters that control what is measured

        samples_per_prompt (`int`, *optional*, defaults to `1`):
            Conversations of each team on each evaluation prompt.
        return_width (`float`, *optional*, defaults to `1.0`):
            Width W of the interval that holds all returns, for the bound of the swap shock.

    Raises:
        `ValueError`: If a value is not allowed.
    """

    take_system_prompt: bool = field(default=True, metadata={"help": "Take over the old member's system prompt."})
    thoughts_off: bool = field(default=True, metadata={"help": "Tell the chat template to leave out thoughts."})
    thoughts_off_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "How the template is told; `enable_thinking: false` if not given."}
    )
    map_calls: bool = field(default=True, metadata={"help": "Write calls as the new member's template does."})
    align: bool = field(default=True, metadata={"help": "Train on the old member's messages before the swap."})
    num_probes: int = field(default=500, metadata={"help": "Maximum number of probe prompts."})
    held_out_fraction: float = field(default=0.2, metadata={"help": "Share of them kept out of the training."})
    generation_batch_size: int = field(default=64, metadata={"help": "Conversations held together."})
    objective: str = field(default="ce", metadata={"help": "`ce` or `kl`."})
    learning_rate: float = field(default=2e-5, metadata={"help": "Learning rate."})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "Schedule of the learning rate."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "Maximum number of epochs."})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "Conversations per device and pass."})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Passes in a step."})
    eval_steps: int = field(default=10, metadata={"help": "Steps between two measurements."})
    early_stopping_patience: int = field(default=3, metadata={"help": "Measurements without an improvement."})
    bf16: bool = field(default=False, metadata={"help": "As in `SFTConfig`."})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "As in `SFTConfig`."})
    use_cpu: bool = field(default=False, metadata={"help": "As in `SFTConfig`."})
    seed: int = field(default=42, metadata={"help": "Seed of the split, the talks and the training."})
    samples_per_prompt: int = field(default=1, metadata={"help": "Conversations on each evaluation prompt."})
    return_width: float = field(default=1.0, metadata={"help": "Width of the interval of all returns."})

    def __post_init__(self):
        if self.thoughts_off_kwargs is None:
            self.thoughts_off_kwargs = {"enable_thinking": False}
        elif isinstance(self.thoughts_off_kwargs, str):  # of a command line
            self.thoughts_off_kwargs = json.loads(self.thoughts_off_kwargs)
        check(
            self.objective in OBJECTIVES,
            f"`objective` must be one of {', '.join(map(repr, OBJECTIVES))}, got {self.objective!r}.",
        )
        check(
            0 < self.held_out_fraction < 1,
            f"`held_out_fraction` must be between 0 and 1, got {self.held_out_fraction}: some probes train, others decide when "
            "to stop.",
        )
        for name in (
            "num_probes",
            "generation_batch_size",
            "eval_steps",
            "early_stopping_patience",
            "samples_per_prompt",
        ):
            value = vars(self)[name]
            check(value >= 1, f"`{name}` must be at least 1, got {value}.")
        check(self.num_probes >= 2, f"`num_probes` must be at least 2, got {self.num_probes}: one is held out.")
        check(self.return_width > 0, f"`return_width` must be positive, got {self.return_width}.")
