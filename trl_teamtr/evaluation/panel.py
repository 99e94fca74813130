"""Agents at one table, who write conversations on the rows of a dataset and have them scored; nobody is trained."""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from tqdm.auto import tqdm
from transformers import set_seed

from ..agent import Agent
from ..returns import compute_returns
from ..rollout import Rollouts
from ..router import Router
from ..stages import evaluating
from ..teamtr_config import TeamTRConfig
from ..teamtr_trainer import TeamTRTrainer
from ..transcript import Message, Transcript
from .protocols import with_own_modules


def evaluation_args(args: TeamTRConfig, output_dir: str) -> TeamTRConfig:
    """
    A copy of `args` for trainers that train nothing: without what only training needs, checks, reports or writes.

    Raises:
        `ValueError`: If DeepSpeed is in use.
    """
    if args.deepspeed_plugin is not None:
        raise ValueError(
            "An evaluation cannot be launched with DeepSpeed: each process holds all models. Use "
            "accelerate_configs/multi_gpu.yaml, or a single process."
        )
    own = copy.copy(args)
    own.output_dir = output_dir
    own.num_agents = None
    own.beta, own.trust_region_radius, own.monitor_fraction, own.resampling = 0.0, None, 0.0, "full"
    own.log_occupancy, own.log_certificate = False, False
    own.allow_silent_agents, own.gradient_checkpointing, own.offload_idle_agents = True, False, False
    own.report_to, own.push_to_hub, own.log_completions, own.load_best_model_at_end = [], False, False, False
    return own


def share_prompts(dataset: Dataset, agents: Sequence[Agent]) -> Dataset:
    """`dataset`, in which an agent that is alone reads all private prompts, each with the name that it is meant for."""
    if len(agents) > 1 or "agent_prompts" not in dataset.column_names:
        return dataset
    (agent,), rows = agents, list(dataset)
    for row in rows:
        private = {name: text for name, text in (row["agent_prompts"] or {}).items() if text}
        if not set(private) <= {agent.name}:
            private = {agent.name: "\n\n".join(f"{name}: {text}" for name, text in private.items())}
        row["agent_prompts"] = {agent.name: private.get(agent.name)}
    return Dataset.from_list(rows)


class Panel:
    """
    A [`TeamTRTrainer`] that is never trained, for its turn loop and its rewards.

    Args:
        agents (`list[Agent]`): The agents, with models or paths of models.
        dataset ([`~datasets.Dataset`]): The tasks.
        reward_funcs, reward_processing_classes, quantization_config: As in [`TeamTRTrainer`].
        args (`TeamTRConfig`): What [`evaluation_args`] returns.
        router, stop_condition (*optional*): As in [`TeamTRTrainer`].
    """

    def __init__(
        self,
        agents: Sequence[Agent],
        dataset: Dataset,
        reward_funcs: list,
        args: TeamTRConfig,
        reward_processing_classes: Any = None,
        quantization_config: Any = None,
        router: Router | None = None,
        stop_condition: Callable[[Transcript], bool] | None = None,
    ):
        self._dataset, self._ended = share_prompts(dataset, agents), []
        self.trainer = TeamTRTrainer(
            with_own_modules(agents),
            list(reward_funcs),  # TRL puts loaded models in the place of their paths
            args,
            train_dataset=self._dataset.take(1),
            eval_dataset={"evaluation": self._dataset},
            reward_processing_classes=reward_processing_classes,
            quantization_config=quantization_config,
            router=router,
            stop_condition=stop_condition,
        )

    def write(self, tasks: Sequence[int], purpose: str) -> list[list[Message]]:
        """
        One conversation for each of `tasks`, which are rows of the dataset. Every process calls this together and gets
        all; a process writes its share.

        Args:
            tasks (`list[int]`): Rows of the dataset.
            purpose (`str`): With `args.seed`, the seed of all draws, so that no protocol depends on another.
        """
        trainer, conversations = self.trainer, []
        process = trainer.accelerator.process_index
        set_seed(random.Random(f"{trainer.args.seed}/{purpose}/{process}").getrandbits(31))
        with evaluating([member.model for member in trainer.members]), trainer.accelerator.autocast():
            for mine, size in self._shares(tasks, purpose):
                rollouts = trainer.collect_rollouts([self._dataset[task] for task in mine])
                transcripts = enumerate(rollouts.transcripts)
                written = gather_object([(each.messages, row in rollouts.full) for row, each in transcripts])[:size]
                conversations += [messages for messages, _ in written]
                self._ended += [full for _, full in written]
        return conversations

    @property
    def ended_for_length(self) -> float:
        """Share of the conversations so far that ended because the next speaker's context was full."""
        return sum(self._ended) / max(len(self._ended), 1)

    def score(self, answers: Sequence[tuple[int, Sequence[Message]]]) -> list[float]:
        """
        The reward of each of `answers`: a row of the dataset, and a conversation whose last message is the answer. The
        weighted sum, if there are several rewards; NaN where none applies. Every process calls this together.
        """
        trainer, returns = self.trainer, []
        for mine, size in self._shares(answers, "rewards"):
            rows = [self._dataset[task] for task, _ in mine]
            transcripts = [
                Transcript(row["prompt"], trainer.team_names, messages=list(messages))
                for row, (_, messages) in zip(rows, mine, strict=True)
            ]
            with evaluating([trainer.model]):
                returns += compute_returns(trainer, rows, Rollouts(transcripts, {}))[:size].tolist()
        return returns

    def _shares(self, items: Sequence, what: str) -> Iterator[tuple[list, int]]:
        """Batches of `items`: this process's share, as long as every other's, and how many items the whole batch has."""
        accelerator, args = self.trainer.accelerator, self.trainer.args
        batch_size = args.per_device_eval_batch_size * accelerator.num_processes
        hidden = args.disable_tqdm or not accelerator.is_main_process
        for start in tqdm(range(0, len(items), batch_size), desc=what, disable=hidden, leave=False):
            batch = list(items[start : start + batch_size])
            filled = batch + batch[-1:] * (-len(batch) % accelerator.num_processes)
            with accelerator.split_between_processes(filled) as share:
                yield share, len(batch)


def loaded_rewards(reward_funcs: Sequence, panel: Panel) -> list:
    """`reward_funcs` with the reward models that `panel` has loaded in the place of their paths."""
    pairs = zip(reward_funcs, panel.trainer.reward_funcs, strict=True)
    return [there if isinstance(there, nn.Module) else func for func, there in pairs]
