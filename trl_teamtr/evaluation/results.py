"""The results of a protocol: its episodes, the figures computed from them, and how both are printed and saved."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from datasets import Dataset

from ..conversation.transcript import Message
from ..maths import evaluation_metrics as metrics
from .evaluation_config import EvaluationConfig


ROUNDING = 1e-6  # tolerance for float32 sums of weighted rewards, so that rounding makes no right answer wrong


@dataclass
class Episode:
    """
    One sample of a task.

    Args:
        task (`int`): Row of the dataset.
        sample (`int`): Which of the task's samples it is.
        conversations (`list[list[Message]]`): All that was sampled for it; for a vote, one conversation per voter.
        answer (`tuple[int, int]`): Index of the answer's conversation, and number of messages up to the answer.
        reward (`float`): Reward of the answer; NaN if none applies.
        earlier (`list[float]`, *optional*): Rewards of the messages before the answer, as if each were the answer.
    """

    task: int
    sample: int
    conversations: list[list[Message]]
    answer: tuple[int, int]
    reward: float
    earlier: list[float] | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens that were sampled for it."""
        return sum(message.num_tokens for conversation in self.conversations for message in conversation)

    @property
    def text(self) -> str:
        """The answer."""
        conversation, length = self.answer
        return self.conversations[conversation][length - 1].text if length else ""

    @property
    def cut_off(self) -> bool:
        """Whether the answer is truncated by the length limit."""
        conversation, length = self.answer
        return length > 0 and not self.conversations[conversation][length - 1].finished

    def record(self, protocol: str, row: dict[str, Any], threshold: float | None) -> dict[str, Any]:
        """The episode, of a `row` of the dataset, as one line of JSON."""
        return {
            "protocol": protocol,
            "task": self.task,
            "sample": self.sample,
            "prompt": row["prompt"],
            "agent_prompts": row.get("agent_prompts"),
            "answer": self.text,
            "reward": _or_none(self.reward),
            "right": is_right(self.reward, threshold),
            "tokens": self.tokens,
            "answered_at": list(self.answer),
            "cut_off": self.cut_off,
            "earlier_rewards": None if self.earlier is None else [_or_none(reward) for reward in self.earlier],
            "transcripts": [[part for m in each for part in _shown(m)] for each in self.conversations],
        }


def _shown(message: Message) -> list[dict[str, Any]]:
    """A message; with its calls and their results before it, if it has some."""
    return message.as_dicts() if message.tool_uses else [{"name": message.agent, "content": message.text}]


def is_right(reward: float, threshold: float | None) -> bool:
    """Whether an answer with this reward is right: it is at least the threshold, 1 by default."""
    return reward >= (1.0 if threshold is None else threshold) - ROUNDING


def _or_none(reward: float) -> float | None:
    return None if math.isnan(reward) else reward  # JSON has no NaN


@dataclass
class ProtocolResult:
    """
    The figures of a protocol, defined in docs/evaluation.md.

    Args:
        protocol (`str`): Its name.
        num_tasks (`int`): Number of tasks included in the figures.
        left_out (`int`): Number of tasks excluded, since no reward applies to some answer to them.
        num_samples (`int`): Number K of episodes per task.
        samples_per_answer (`int`): Number of conversations from which each episode's answer is chosen.
        accuracy (`float`): avg@K.
        interval (`tuple[float, float]`): Its 95 % bootstrap interval over tasks.
        pass_at_k (`dict[int, float]`): pass@k for each k.
        reward (`float`): Mean reward of the answers.
        coordination (`float`, *optional*): `None` where it is undefined.
        tokens (`float`): Mean number of sampled tokens per episode.
        cut_off (`float`): Share of the episodes whose answer is truncated by the length limit.
        ended_for_length (`float`): Share of the conversations that ended because the next speaker's context was full.
        accuracies (`list[float]`): Accuracy on each task of the dataset, `None` for excluded ones.
        records (`list[dict]`): One per episode, those of excluded tasks included.
    """

    protocol: str
    num_tasks: int
    left_out: int
    num_samples: int
    samples_per_answer: int
    accuracy: float
    interval: tuple[float, float]
    pass_at_k: dict[int, float]
    reward: float
    coordination: float | None
    tokens: float
    cut_off: float = 0.0
    ended_for_length: float = 0.0
    accuracies: list[float | None] = field(default_factory=list, repr=False)
    records: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The figures, without the records of single episodes."""
        return {name: value for name, value in asdict(self).items() if name != "records"}


def summarize(
    protocol: str, episodes: Sequence[Episode], dataset: Dataset, config: EvaluationConfig, seed: int
) -> ProtocolResult:
    """
    The figures of `episodes`, where the samples of a task are adjacent.

    Args:
        protocol (`str`): Their protocol.
        episodes (`list[Episode]`): `config.num_samples` for each task.
        dataset ([`~datasets.Dataset`]): The tasks.
        config (`EvaluationConfig`): For `k` and `threshold`.
        seed (`int`): Seed of the bootstrap.

    Raises:
        `ValueError`: If every task has an answer to which no reward applies.
    """
    size = config.num_samples
    tasks = [episodes[start : start + size] for start in range(0, len(episodes), size)]
    judged = [samples for samples in tasks if not any(math.isnan(episode.reward) for episode in samples)]
    if not judged:
        raise ValueError(
            f"No task can be judged: to some answer of each, by protocol {protocol!r}, all reward functions returned "
            "`None`. Use a reward that applies to this dataset."
        )
    kept = [episode for samples in judged for episode in samples]
    right = [[is_right(episode.reward, config.threshold) for episode in samples] for samples in judged]
    accuracy, low, high = metrics.avg_at_k(right, seed)
    earlier = [[is_right(r, config.threshold) for r in e.earlier] for e in kept if e.earlier is not None]
    final = [is_right(episode.reward, config.threshold) for episode in kept]
    return ProtocolResult(
        protocol=protocol,
        num_tasks=len(judged),
        left_out=len(tasks) - len(judged),
        num_samples=size,
        samples_per_answer=len(episodes[0].conversations),
        accuracy=accuracy,
        interval=(low, high),
        pass_at_k={
            k: statistics.fmean(metrics.pass_at_k(size, sum(samples), k) for samples in right) for k in config.k
        },
        reward=statistics.fmean(episode.reward for episode in kept),
        coordination=metrics.coordination(earlier, final) if len(earlier) == len(final) else None,
        tokens=statistics.fmean(episode.tokens for episode in episodes),
        cut_off=statistics.fmean(episode.cut_off for episode in episodes),
        accuracies=[_accuracy(samples, config.threshold) for samples in tasks],
        records=[e.record(protocol, dataset[e.task], config.threshold) for e in episodes],
    )


def _accuracy(samples: Sequence[Episode], threshold: float | None) -> float | None:
    if any(math.isnan(episode.reward) for episode in samples):
        return None
    return sum(is_right(episode.reward, threshold) for episode in samples) / len(samples)


def format_table(results: Sequence[ProtocolResult]) -> str:
    """The results as aligned columns of text."""
    first = results[0]
    k = list(first.pass_at_k)
    head = ["protocol", "samples", f"avg@{first.num_samples}", "95 % interval", *(f"pass@{each}" for each in k)]
    rows = [[*head, "reward", "coordination", "tokens/episode"]]
    for result in results:
        low, high = result.interval
        rows.append(
            [
                result.protocol + "*" * (result.protocol == "best_of_n"),
                str(result.samples_per_answer),
                f"{result.accuracy:.3f}",
                f"[{low:.3f}, {high:.3f}]",
                *(f"{result.pass_at_k[each]:.3f}" for each in k),
                f"{result.reward:.3f}",
                "-" if result.coordination is None else f"{result.coordination:.3f}",
                f"{result.tokens:.1f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([r[0].ljust(widths[0]), *map(str.rjust, r[1:], widths[1:])]) for r in rows]
    if any(result.protocol == "best_of_n" for result in results):
        lines.append("* chosen by the reward itself: an oracle, an upper bound on any choice among the samples")
    notes = {
        "left_out": "Tasks excluded, since no reward applies",
        "cut_off": "Share of the answers truncated by `max_completion_length`",
        "ended_for_length": "Share of the conversations that ended early because a context was full",
    }
    for name, note in notes.items():
        found = {r.protocol: round(value, 3) for r in results if (value := vars(r)[name])}
        lines += [f"{note}: {json.dumps(found)}"] if found else []
    return "\n".join(lines)


def write_episodes(results: Sequence[ProtocolResult], path: str):
    """Write every episode of `results`, with its transcripts, as one line of JSON each."""
    with open(path, "w", encoding="utf-8") as file:
        for result in results:
            file.writelines(json.dumps(record, default=str) + "\n" for record in result.records)
