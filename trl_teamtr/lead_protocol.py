"""What a member in training needs of the trainer of its team."""

from typing import Any, Protocol

import torch
from transformers import TrainerControl
from transformers.trainer_callback import CallbackHandler

from .conversation.transcript import Transcript
from .policy.residency import Residency


class Lead(Protocol):
    """What a member needs of the trainer of its team."""

    callback_handler: CallbackHandler
    control: TrainerControl
    residency: Residency

    def team_rewards(
        self, inputs: list[dict[str, Any]], prompts: list, completions: list, transcripts: list[Transcript]
    ) -> torch.Tensor:
        """Rewards of rollouts by each reward function, over all processes."""
        ...
