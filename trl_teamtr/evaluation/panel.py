"""A team with tasks and rewards: it generates conversations on the rows of a dataset, and scores them."""

import contextlib
import random
from collections.abc import Iterator, Sequence

from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import set_seed

from ..agents.agent import Agent
from ..conversation.transcript import Message, Transcript
from ..policy.evaluating import evaluating
from ..returns.scorer import RewardScorer
from ..team import Team
from ..teamtr_config import TeamTRConfig


def share_prompts(dataset: Dataset, agents: Sequence[Agent]) -> Dataset:
    """`dataset`, where a single agent reads all private prompts, each prefixed with its owner's name."""
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
    A [`Team`] with tasks and a scorer.

    Args:
        team ([`Team`]): The agents and their rules.
        dataset ([`~datasets.Dataset`]): The tasks.
        scorer ([`RewardScorer`]): Scores the answers.
        args ([`TeamTRConfig`]): For `seed`, `per_device_eval_batch_size` and `disable_tqdm`.
    """

    def __init__(self, team: Team, dataset: Dataset, scorer: RewardScorer, args: TeamTRConfig):
        self.team, self._scorer, self._args = team, scorer, args
        self._dataset = share_prompts(dataset, [speaker.agent for speaker in team.speakers])
        self._ended: list[bool] = []

    @property
    def acts(self) -> bool:
        """Whether the team acts on environments, which are there until their conversation has been scored."""
        return self.team.settings.environments is not None

    def play(self, tasks: Sequence[int], purpose: str) -> tuple[list[list[Message]], list[float] | None]:
        """
        Generate one conversation for each of `tasks`. All processes call this together; each generates its share, and
        gets all of them.

        Args:
            tasks (`list[int]`): Rows of the dataset.
            purpose (`str`): Seeds all sampling, with `args.seed`, so that no protocol depends on another.

        Returns:
            `tuple` of the conversations and, if the team acts on environments, the reward of each in the state of its environment
            at its end; else `None`: [`~Panel.score`] scores them.
        """
        team, conversations = self.team, []
        rewards: list[float] | None = [] if self.acts else None
        key = f"{self._args.seed}/{purpose}/{team.accelerator.process_index}"
        set_seed(random.Random(key).getrandbits(31))
        for mine, size in self._shares(tasks, purpose):
            rows = [self._dataset[task] for task in mine]
            with self._speaking():
                rollouts = team.collect(rows)
            transcripts = enumerate(rollouts.transcripts)
            written = gather_object([(each.messages, row in rollouts.full) for row, each in transcripts])[:size]
            conversations += [messages for messages, _ in written]
            self._ended += [full for _, full in written]
            if rewards is not None:
                rewards += self._scorer.score(rows, rollouts.transcripts)[:size].tolist()
        return conversations, rewards

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        team = self.team
        with evaluating([speaker.policy.model for speaker in team.local_speakers]), team.accelerator.autocast():
            yield

    @property
    def ended_for_length(self) -> float:
        """Share of the conversations so far that ended because the next speaker's context was full."""
        return sum(self._ended) / max(len(self._ended), 1)

    def score(self, answers: Sequence[tuple[int, Sequence[Message]]]) -> list[float]:
        """
        The reward of each of `answers`: a row of the dataset, and a conversation whose last message is the answer. The
        weighted sum, if there are several rewards; NaN where none applies. All processes call this together.
        """
        returns: list[float] = []
        for mine, size in self._shares(answers, "rewards"):
            rows = [self._dataset[task] for task, _ in mine]
            transcripts = [
                Transcript(row["prompt"], self.team.names, messages=list(messages))
                for row, (_, messages) in zip(rows, mine, strict=True)
            ]
            returns += self._scorer.score(rows, transcripts)[:size].tolist()
        return returns

    def _shares(self, items: Sequence, what: str) -> Iterator[tuple[list, int]]:
        """Batches of `items`: this process's share, of equal length on all, and the size of the whole batch."""
        accelerator, args = self.team.accelerator, self._args
        batch_size = args.per_device_eval_batch_size * accelerator.num_processes
        hidden = args.disable_tqdm or not accelerator.is_main_process
        for start in tqdm(range(0, len(items), batch_size), desc=what, disable=hidden, leave=False):
            batch = list(items[start : start + batch_size])
            filled = batch + batch[-1:] * (-len(batch) % accelerator.num_processes)
            with accelerator.split_between_processes(filled) as share:
                yield share, len(batch)
