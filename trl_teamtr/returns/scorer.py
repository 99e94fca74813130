"""Rewards of rollouts, without a trainer."""

import asyncio
import atexit
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase, TrainerState
from trl.data_utils import apply_chat_template
from trl.trainer.utils import (
    get_callable_name,
    get_config_model_id,
    is_async_callable,
    shutdown_event_loop_in_daemon,
    start_event_loop_in_daemon,
)

from ..conversation.transcript import Transcript
from .returns import answer_ids, answers, reward_inputs, weigh_rewards
from .rewards import check_model_rewards


class RewardScorer:
    """
    Calls reward functions and reward models as [`~trl.GRPOTrainer`] does, without a trainer. What functions log with
    `log_extra` and `log_metric` is discarded where the caller passes none of these.

    Args:
        reward_funcs (`list`): Functions ([`checked`]), models, and paths of models.
        accelerator ([`~accelerate.Accelerator`]): Of the processes that share the rollouts.
        processing_classes (*optional*): Tokenizers of the models, as in [`~trl.GRPOTrainer`].
        weights (`list[float]`, *optional*): Weights of the functions; 1 each if not given.
        model_init_kwargs (`dict`, *optional*): How models are loaded.
        chat_template_kwargs (`dict`, *optional*): Keyword arguments for the chat templates of models.

    Attributes:
        reward_funcs (`list`): The functions and models, loaded.
        names (`list[str]`): Their names.

    Raises:
        `ValueError`: If there are not as many weights or processing classes as functions.
    """

    def __init__(
        self,
        reward_funcs: Sequence,
        accelerator: Accelerator,
        processing_classes: Any = None,
        weights: Sequence[float] | None = None,
        model_init_kwargs: dict[str, Any] | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ):
        classes = (
            processing_classes if isinstance(processing_classes, list) else [processing_classes] * len(reward_funcs)
        )
        for what, given in (("`reward_weights`", weights), ("`reward_processing_classes`", classes)):
            if given is not None and len(given) != len(reward_funcs):
                raise ValueError(
                    f"There are {len(reward_funcs)} reward functions, but {what} has {len(given)} entries."
                )
        self._accelerator = accelerator
        self._weights = torch.tensor(weights if weights is not None else [1.0] * len(reward_funcs))
        self.reward_funcs: list = []
        self._tokenizers: list[PreTrainedTokenizerBase | None] = []
        self.names: list[str] = []
        for func, tokenizer in zip(reward_funcs, classes, strict=True):
            if isinstance(func, str | nn.Module):
                func, tokenizer = _load(func, tokenizer, model_init_kwargs or {})
                func = accelerator.prepare_model(func, evaluation_mode=True, device_placement=True)
                name = get_config_model_id(func.config)
            else:
                name = get_callable_name(func)
            self.reward_funcs.append(func)
            self._tokenizers.append(tokenizer)
            self.names.append(name)
        self._chat_template_kwargs = chat_template_kwargs or {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def score(self, rows: Sequence[dict[str, Any]], transcripts: Sequence[Transcript]) -> torch.Tensor:
        """
        The weighted sum of the rewards of each rollout. All processes call this together.

        Args:
            rows (`list[dict]`): Rows of the dataset, of this process.
            transcripts (`list[Transcript]`): Their rollouts.

        Returns:
            `torch.Tensor` of shape `(rows of all processes,)`, float32; NaN where no function returned a reward.
        """
        return self.weigh(self.rewards(rows, transcripts))

    def weigh(self, rewards: torch.Tensor) -> torch.Tensor:
        """The weighted sums of what [`~RewardScorer.rewards`] returns."""
        return weigh_rewards(rewards, self._weights)

    def rewards(
        self, rows: Sequence[dict[str, Any]], transcripts: Sequence[Transcript], **arguments: Any
    ) -> torch.Tensor:
        """
        The rewards of each rollout. All processes call this together.

        Args:
            rows, transcripts: As in [`~RewardScorer.score`].
            arguments: `trainer_state`, `log_extra` and `log_metric` of a run, for functions that take them.

        Returns:
            `torch.Tensor` of shape `(rows of all processes, functions)`, float32; NaN where a function does not apply.
        """
        inputs = reward_inputs(rows, transcripts)
        own = {key: [row[key] for row in inputs] for key in inputs[0] if key not in _OWN_ARGUMENTS}
        arguments = own | {
            "trainer_state": TrainerState(),
            "log_extra": _drop,
            "log_metric": _drop,
            **arguments,
            "prompts": [row["prompt"] for row in rows],
            "completions": answers(transcripts),
            "completion_ids": answer_ids(transcripts),
        }
        asked = [self._ask(i, arguments) for i in range(len(self.reward_funcs))]
        found = [answer.result() if isinstance(answer, Future) else answer for answer in asked]
        columns = [self._as_tensor(answer) for answer in found]
        rewards = self._accelerator.gather(torch.stack(columns, dim=1))
        check_model_rewards(rewards, self.reward_funcs, self.names)
        return rewards

    def _ask(self, number: int, arguments: dict[str, Any]) -> Any:
        """The rewards of one function or model; for an async function their future, so that others run meanwhile."""
        func, tokenizer = self.reward_funcs[number], self._tokenizers[number]
        if isinstance(func, nn.Module):
            assert tokenizer is not None  # loaded with the model
            texts = _join(arguments["prompts"], arguments["completions"], tokenizer, self._chat_template_kwargs)
            return _ask_model(func, tokenizer, texts, self._accelerator.device)
        if not is_async_callable(func):
            return func(**arguments)
        if self._loop is None:
            # One loop for all calls: clients are bound to the loop that made them
            thread, self._loop, ready = start_event_loop_in_daemon(name="RewardScorer-AsyncLoop")
            ready.wait()
            atexit.register(shutdown_event_loop_in_daemon, thread, self._loop)
        return asyncio.run_coroutine_threadsafe(func(**arguments), self._loop)

    def _as_tensor(self, rewards: Any) -> torch.Tensor:
        if isinstance(rewards, torch.Tensor):
            return rewards
        values = [torch.nan if reward is None else reward for reward in rewards]
        return torch.tensor(values, dtype=torch.float32, device=self._accelerator.device)


# Columns that a reward function gets under other names
_OWN_ARGUMENTS = ("prompt", "completion", "completion_ids")


def _drop(*args, **kwargs):
    """Discard what a function logs: there is no training run."""


def _load(model: Any, tokenizer: Any, init_kwargs: dict[str, Any]) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """A reward model and its tokenizer, ready to score sequences that are padded on the right."""
    if isinstance(model, str):
        model = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, **init_kwargs)
    if tokenizer is None:
        own = {key: init_kwargs[key] for key in ("revision", "trust_remote_code") if key in init_kwargs}
        tokenizer = AutoTokenizer.from_pretrained(get_config_model_id(model.config), **own)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # The reward is read at the last token that is not padding
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def _join(prompts: list, completions: list, tokenizer: PreTrainedTokenizerBase, template_kwargs: dict) -> list[str]:
    """Prompts and answers, as a reward model reads them."""
    pairs = list(zip(prompts, completions, strict=True))
    if isinstance(prompts[0], str):
        return [prompt + completion for prompt, completion in pairs]
    return [apply_chat_template({"messages": p + said}, tokenizer, **template_kwargs)["text"] for p, said in pairs]


@torch.inference_mode()
def _ask_model(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: list[str], device: torch.device
) -> torch.Tensor:
    inputs = tokenizer(text=texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    return model(**inputs.to(device)).logits[:, 0].float()
