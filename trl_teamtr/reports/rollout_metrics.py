"""The cost of a batch of rollouts and the length of an agent's messages, under TRL's names where it has them."""

import sys
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from ..rollouts.rollouts import Rollouts


@dataclass
class RolloutMetrics:
    """
    Metrics of rollouts, over all processes.

    Args:
        values (`dict[str, float]`): Metrics by their logged names.
        num_tokens (`int`): Number of tokens of all messages, and of the context of the agent's first one.
    """

    values: dict[str, float]
    num_tokens: int


def measure_rollouts(
    rollouts: Rollouts, name: str, accelerator: Accelerator, has_tools: bool = False
) -> RolloutMetrics:
    """
    The metrics of `rollouts`.

    Args:
        rollouts (`Rollouts`): Of this process. Views in which the agent never spoke may be ended already.
        name (`str`): The agent whose update or evaluation they are for.
        accelerator ([`~accelerate.Accelerator`]): All processes call this together.
        has_tools (`bool`): Whether the agent has tools.
    """
    views = rollouts.views[name]
    messages = [message for transcript in rollouts.transcripts for message in transcript.messages]
    calls = [failed for m in messages if m.agent == name for use in m.tool_uses for failed in use.failed]
    counts = {
        "messages": len(messages),
        "tokens": sum(message.num_tokens for message in messages),
        "cut": rollouts.num_cut,
        "full": len(rollouts.full),
        "read": sum(len(view.opening_ids) for view in views),
        "unfinished": sum(not message.finished for message in messages if message.agent == name),
        "unanswered": sum(bool(message.thought) and not message.text for message in messages if message.agent == name),
        "decoded": rollouts.tokens_decoded,
        "scored": rollouts.tokens_scored,
        "kept": rollouts.tokens_kept,
        "calls": len(calls),
        "failures": sum(calls),
        "without_room": rollouts.tools_without_room,
        "tool_milliseconds": round(1000 * rollouts.tool_seconds[name]),
        "rollouts": len(rollouts.transcripts),
        "own_messages": sum(view.num_messages for view in views),
    }
    own = [(len(message.ids), message.finished) for message in messages if message.agent == name]
    total = accelerator.reduce(torch.tensor(list(counts.values()), device=accelerator.device), reduction="sum")
    counts = dict(zip(counts, total.tolist(), strict=True))
    own_messages = max(counts["own_messages"], 1)
    values = {
        "rollout/messages": counts["messages"],
        "rollout/tokens_decoded": counts["decoded"],
        "rollout/tokens_scored": counts["scored"],
        "rollout/reused_fraction": counts["kept"] / max(counts["tokens"], 1),
        "rollout/messages_cut": counts["cut"],
        "rollout/ended_for_length": counts["full"],
        "completions/clipped_ratio": counts["unfinished"] / own_messages,
        "completions/unanswered_ratio": counts["unanswered"] / own_messages,
        **(_measure_tools(counts, name) if has_tools else {}),
        **_measure_lengths([length for length, _ in own], "length", accelerator),
        **_measure_lengths([length for length, finished in own if finished], "terminated_length", accelerator),
    }
    return RolloutMetrics(values, counts["read"] + counts["tokens"])


def _measure_tools(counts: dict[str, int], name: str) -> dict[str, float]:
    return {
        f"tools/{name}/calls": counts["calls"] / counts["rollouts"],
        f"tools/{name}/failures": counts["failures"] / max(counts["calls"], 1),
        f"tools/{name}/time": counts["tool_milliseconds"] / 1000 / counts["rollouts"],
        "tools/without_room": counts["without_room"],
    }


def _measure_lengths(lengths: list[int], name: str, accelerator: Accelerator) -> dict[str, float]:
    """Mean, smallest and largest of the `lengths` of all processes; 0 if there are none, as in TRL."""
    found = [len(lengths), sum(lengths), min(lengths, default=sys.maxsize), max(lengths, default=0)]
    counts, sums, smallest, largest = accelerator.gather(torch.tensor([found], device=accelerator.device)).unbind(1)
    number = int(counts.sum())
    values = {
        "mean": float(sums.sum()) / max(number, 1),
        "min": float(smallest.min()) if number else 0.0,
        "max": float(largest.max()),
    }
    return {f"completions/{kind}_{name}": value for kind, value in values.items()}
