"""Messages that do not depend on the rest of their batch: each has a seed, a temperature and a reader of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from ..agents.settings import SamplingSettings
from .transforms import sampling_transforms


# Settings of a `GenerationConfig` that act before an id is drawn here, or do not act on it at all
_BEFORE = {
    *("eos_token_id", "pad_token_id", "bos_token_id", "repetition_penalty", "no_repeat_ngram_size", "bad_words_ids"),
    *("sequence_bias", "min_length", "min_new_tokens", "forced_bos_token_id", "forced_eos_token_id", "use_cache"),
    *("remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens"),
    *("renormalize_logits", "max_length", "disable_compile", "cache_config"),
}


@dataclass(frozen=True)
class Draw:
    """
    How one message is drawn, apart from the others of its batch.

    Args:
        seed (`int`, *optional*): Seed of its ids. The batch's random state is used if not given.
        temperature (`float`, *optional*): In place of its agent's; 0 for the most probable id at each place, and above 0 with a
            `seed` only.
        max_tokens (`int`, *optional*): Maximum number of its tokens, if that is less than its agent's.
        on_token (`Callable[[int], bool]`, *optional*): Called with each id as soon as it is drawn. The message ends there if
            it returns `False`.
    """

    seed: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    on_token: Callable[[int], bool] | None = None

    @property
    def is_own(self) -> bool:
        """Whether its ids are drawn apart from those of the batch."""
        return self.seed is not None or self.temperature is not None


class OwnDraws(LogitsProcessor):
    """
    Draws the next id of rows that have a [`Draw`] of their own, and leaves no other to sample.

    As a processor of the user, it comes before the temperature and the truncations of `generate`, which leave a single id as
    it is; here they are applied before drawing. An id is the winner of an exponential race, as in `torch.multinomial`, so
    that rounding, which differs between batches, hardly ever changes it.

    Args:
        draws (`Sequence[Draw]`): One per row, `None` for a row without; at least one is own.
        sampling ([`SamplingSettings`]): Of the agent.
        device ([`~torch.device`]): Of the logits.

    Raises:
        `ValueError`: If `generation_kwargs` has a setting that acts on ids after they are drawn.
    """

    def __init__(self, draws: Sequence[Draw | None], sampling: SamplingSettings, device: torch.device):
        check_own_draws(sampling)
        self._transforms = sampling_transforms(sampling)
        own = {row: draw for row, draw in enumerate(draws) if draw is not None and draw.is_own}
        self._rows = list(own)
        given = [sampling.temperature if draw.temperature is None else draw.temperature for draw in own.values()]
        self._greedy = torch.tensor([temperature == 0 for temperature in given], device=device)
        self._temperatures = torch.tensor([temperature or 1.0 for temperature in given], device=device)[:, None]
        self._generators = [
            None if draw.seed is None else torch.Generator(device).manual_seed(draw.seed) for draw in own.values()
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        rows = self._rows
        own_ids: Any = input_ids[rows]  # declared as what transformers makes itself
        logits: Any = self._transforms(own_ids, scores[rows].float() / self._temperatures)
        race = torch.ones_like(logits)
        for row, generator in zip(race, self._generators, strict=True):
            if generator is not None:
                row.exponential_(generator=generator)
        race[self._greedy] = 1.0
        drawn = (logits.softmax(dim=-1) / race).argmax(dim=-1)
        scores = scores.clone()  # those before are recorded
        scores[rows] = float("-inf")
        scores[rows, drawn] = 0.0
        return scores


class Reading(StoppingCriteria):
    """
    Passes on ids as they are drawn, and ends rows that are not wanted any more.

    Args:
        draws (`Sequence[Draw]`): One per row, `None` for a row without.
        limits (`Sequence[int]`): Maximum number of new tokens of each row.
        eos_token_ids (`Sequence[int]`): Ids that end a message.

    Attributes:
        lengths (`dict[int, int]`): Number of ids of each row that was ended here.
    """

    def __init__(self, draws: Sequence[Draw | None], limits: Sequence[int], eos_token_ids: Sequence[int]):
        self._readers = {i: draw.on_token for i, draw in enumerate(draws) if draw is not None and draw.on_token}
        self._limits, self._ends, self._count = list(limits), set(eos_token_ids), 0
        self._size = len(limits)
        self.lengths: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self._count += 1
        drawn = input_ids[:, -1].tolist()
        for row, read in list(self._readers.items()):
            if not read(drawn[row]):
                self.lengths[row] = self._count
            if row in self.lengths or drawn[row] in self._ends or self._count >= self._limits[row]:
                del self._readers[row]
        ended = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        ended[list(self.lengths)] = True
        return ended


def check_own_draws(sampling: SamplingSettings):
    """Raise `ValueError` if ids of an agent with these settings cannot be drawn row by row."""
    later = sorted(set(sampling.generation_kwargs or {}) - _BEFORE)
    if later:
        raise ValueError(
            f"A seed, a temperature and greedy answers of one's own cannot be had from an agent with `{'`, `'.join(later)}` in its "
            "`generation_kwargs`, which acts on the whole batch. Leave them out of the call, or the settings out of the agent."
        )
