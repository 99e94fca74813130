"""Generation backends, which sample ids for contexts."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedTokenizerBase, StoppingCriteriaList
from trl.trainer.utils import pad

from ..agents.settings import SamplingSettings
from .batching import RowLimits, plan_batches
from .cache import CacheSize, find_budget, measure_cache
from .drawing import Draw, OwnDraws, Reading
from .policy import Policy
from .processes import largest
from .recording import Recorder


@dataclass(frozen=True)
class Request:
    """
    A message to sample, or the rest of one.

    Args:
        agent (`str`): Name of its author.
        context (`list[int]`): Token ids that it follows.
        max_tokens (`int`): Maximum number of its tokens, at least 1.
        draw ([`Draw`], *optional*): How it is drawn, if apart from the rest of its batch.
    """

    agent: str
    context: list[int]
    max_tokens: int
    draw: Draw | None = None


@dataclass(frozen=True)
class Written:
    """
    What was sampled after a context.

    Args:
        ids (`list[int]`): Up to and including the first that ends a message.
        logps (`list[float]`, *optional*): Log-probabilities with which they were sampled, at the temperature and before any
            truncation, in nats; `None` if they are not known.
        thought (`str`): A thought that a server has divided from them.
        cut (`bool`): Whether a server has ended them at a limit of length. Otherwise their last one says so.
        tokens (`int`, *optional*): Number of tokens, if that is not their number.
    """

    ids: list[int]
    logps: list[float] | None = None
    thought: str = ""
    cut: bool = False
    tokens: int | None = None


class Backend(Protocol):
    """Samples with the current weights of the agents that have it as their backend, which may be one or several."""

    def generate(self, requests: list[Request]) -> list[Written]:
        """What is sampled for each of `requests`. All processes call this together; one may pass none."""
        ...

    def publish(self, agent: str):
        """The weights of `agent` have changed: from now on it speaks with the present ones. All processes call this."""
        ...

    def rest(self):
        """No agent speaks for a while: leave the device to the training. Each process may call this alone."""
        ...

    def close(self):
        """Release what is held outside this process until an agent next speaks. Each process may call this alone."""
        ...


class PlainBackend:
    """
    `generate` of transformers, on the policy itself; samples are those of [`~trl.GRPOTrainer`], to the bit.

    Args:
        policy ([`Policy`]): The policy.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): Provides the id that contexts are padded with.
        eos_token_ids (`list[int]`): Ids that end a message.
        sampling ([`SamplingSettings`]): How to sample.
        suppressed (`list[int]`, *optional*): Ids that are never sampled.
        pad_to_multiple_of (`int`, *optional*): If set, batches are padded to a multiple of it.
        max_length (`int`): Maximum number of tokens of a context with its message.
        cache_gib (`float`, *optional*): GiB that the keys and values of a batch may take. [`find_budget`] if not given.
        before_use (`Callable[[], None]`, *optional*): Called before the policy samples, whose weights may be offloaded.

    Attributes:
        config ([`~transformers.GenerationConfig`]): What is passed to `generate`.

    Raises:
        `ValueError`: If `generation_kwargs` has `stop_strings`.
    """

    def __init__(
        self,
        policy: Policy,
        tokenizer: PreTrainedTokenizerBase,
        eos_token_ids: list[int],
        sampling: SamplingSettings,
        suppressed: list[int] | None = None,
        pad_to_multiple_of: int | None = None,
        max_length: int = sys.maxsize,
        cache_gib: float | None = None,
        before_use: Callable[[], None] | None = None,
    ):
        self._before_use = before_use
        self._policy, self._tokenizer, self._eos_token_ids = policy, tokenizer, eos_token_ids
        self._pad_to_multiple_of, self._max_length = pad_to_multiple_of, max_length
        self._sampling = sampling
        self._cache_budget = None if cache_gib is None else cache_gib * 2**30
        self._cache_size: CacheSize | None = None
        self._kwargs: dict[str, Any] = {
            "max_new_tokens": sampling.max_completion_length,
            "do_sample": True,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "cache_implementation": sampling.cache_implementation,
            **({"suppress_tokens": suppressed} if suppressed else {}),
            **(sampling.generation_kwargs or {}),
            "eos_token_id": eos_token_ids,
        }
        # Otherwise what `generate` samples from is not the policy's distribution, truncated
        self._samples_plainly = self._kwargs["repetition_penalty"] == 1.0 and self._kwargs.get("num_beams", 1) == 1
        if "stop_strings" in self._kwargs:
            raise ValueError(
                "`stop_strings` is not supported in `generation_kwargs`: a message ends with a token. Give its id as "
                "`eos_token_id`; `stop_string` of the config ends the whole rollout after a message that contains it."
            )
        self.config = self._make_config(self._kwargs["max_new_tokens"])

    def generate(self, requests: list[Request]) -> list[Written]:
        if self._before_use is not None:
            self._before_use()
        lengths, limits = [len(each.context) for each in requests], [each.max_tokens for each in requests]
        batches = plan_batches(lengths, limits, self._max_length, self._make_fits())
        found: dict[int, Written] = {}
        (most,) = largest(self._policy.accelerator, [len(batches)])
        for number in range(most):
            # A process without a row still takes part: generation under ZeRO-3 gathers the weights
            rows = batches[number] if number < len(batches) else []
            found |= dict(zip(rows, self._generate([requests[row] for row in rows]), strict=True))
        return [found[row] for row in range(len(requests))]

    def publish(self, agent: str):
        """Nothing to do: it samples with the policy itself."""

    def rest(self):
        """Nothing to do: it holds nothing between its calls."""

    def close(self):
        """Nothing to do: it holds nothing outside this process."""

    def _make_fits(self) -> Callable[[int, int], bool]:
        """Whether the cache of a number of rows of a length fits; measured when it is first asked."""
        device = self._policy.accelerator.device
        if self._cache_size is None:
            with self._policy.generating(self._kwargs) as model:
                self._cache_size = measure_cache(model, device)
            if self._cache_budget is None:
                self._cache_budget = find_budget(device)
        size, budget = self._cache_size, self._cache_budget
        assert budget is not None
        return lambda rows, length: size.fits(rows, length, budget)

    def _generate(self, requests: list[Request]) -> list[Written]:
        """One batch, in one call of transformers' `generate`."""
        ids, mask = self._pad([request.context for request in requests] or [[self._tokenizer.pad_token_id]])
        limits, draws = [request.max_tokens for request in requests], [request.draw for request in requests]
        reading = Reading(draws, limits, self._eos_token_ids)
        ends = StoppingCriteriaList([RowLimits(torch.tensor(limits or [1], device=ids.device), ids.size(1)), reading])
        recorder = Recorder(self._kwargs["temperature"]) if self._samples_plainly else None
        processors = LogitsProcessorList([] if recorder is None else [recorder])
        if recorder is not None:
            ends.append(recorder.ending)
        if any(draw is not None and draw.is_own for draw in draws):
            processors.append(OwnDraws(draws, self._sampling, ids.device))
        # Without a gradient, and under ZeRO-3 with the weights gathered
        with self._policy.generating(self._kwargs) as model:
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=self._make_config(max(limits, default=1)),
                stopping_criteria=ends,
                logits_processor=processors,
            )
        new = output[: len(requests), ids.size(1) :].tolist()
        logps = [None] * len(new) if recorder is None else recorder.logps
        return [
            self._cut(new[row][: reading.lengths.get(row, limit)], own if draw is None or not draw.is_own else None)
            for row, (limit, own, draw) in enumerate(zip(limits, logps, draws, strict=False))
        ]

    def _make_config(self, max_new_tokens: int | None) -> GenerationConfig:
        return GenerationConfig(**{**self._kwargs, "max_new_tokens": max_new_tokens}, disable_compile=True)

    def _pad(self, contexts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and attention mask of `contexts`, padded on the left."""
        device, rows = self._policy.accelerator.device, [torch.tensor(context) for context in contexts]
        width = self._pad_to_multiple_of
        ids = pad(rows, self._tokenizer.pad_token_id, padding_side="left", pad_to_multiple_of=width)
        mask = pad([torch.ones_like(row) for row in rows], 0, padding_side="left", pad_to_multiple_of=width)
        return ids.to(device), mask.to(device)

    def _cut(self, ids: list[int], logps: list[float] | None) -> Written:
        """`ids` up to the first that ends a message: what follows is padding."""
        end = next((i for i, token in enumerate(ids) if token in self._eos_token_ids), len(ids))
        kept = ids[: end + 1]
        return Written(kept, None if logps is None else logps[: len(kept)])
