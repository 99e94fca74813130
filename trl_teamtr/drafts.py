"""What becomes of a team's rollouts when one of its agents has been updated: which messages stand, and which are checked."""

import contextlib
from typing import TYPE_CHECKING

import torch
from transformers import LogitsProcessorList, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from trl.trainer.utils import pad

from .block_verification import SampledLaw, verify
from .rollout import Rollouts, union
from .scoring import compute_logits, rows_per_chunk
from .snapshot import Snapshot
from .transcript import Message, Transcript


if TYPE_CHECKING:
    from .agent_trainer import AgentTrainer


# Most log-probabilities of one law that verification holds at a time: 128 MiB in float32. Of a message that has more
# than these, the logits of both laws are held in the model's dtype.
LOGITS_PER_CHUNK = 2**25


class Drafts:
    """
    The rollouts of the team before its last update.

    Messages before the updated agent's first turn have the law of the updated team as they stand. Later ones are decoded
    anew or, with `speculative`, are drafts: block verification keeps as much of each as the new law allows, and what
    follows a cut is drawn anew. A message whose author and context are both unchanged stands without a look.

    Each message has the law of its author's weights and context at its last verification. Those of the agent that was
    updated since are in `snapshot`; all other weights are the present ones, and the contexts are in `rollouts`.

    Args:
        rollouts (`Rollouts`): What the team wrote before the update.
        updated (`str`, *optional*): The agent that was updated; `None` if the team is what it was.
        snapshot (`Snapshot`, *optional*): Its policy before the update, for verification.
        speculative (`bool`): Whether to verify messages, rather than to decode them anew.
        standing (`list[int]`, *optional*): How many messages each rollout keeps without a look; those before the updated
            agent's first turn if not given.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        updated: str | None,
        snapshot: Snapshot | None = None,
        speculative: bool = False,
        standing: list[int] | None = None,
    ):
        self.rollouts = rollouts
        self._updated = updated
        self._snapshot = snapshot
        self._speculative = speculative
        if standing is None:
            standing = [transcript.first_turn_of({updated}) for transcript in rollouts.transcripts]
        self._standing = standing
        self._changed: set[int] = set()

    def unchanged(self, row: int) -> bool:
        """Whether the row is, so far, what it was."""
        return row not in self._changed

    def author(self, row: int, transcript: Transcript) -> str | None:
        """Who spoke next in a row that is unchanged so far; `None` where the rollout ended."""
        messages, turn = self.rollouts.transcripts[row].messages, len(transcript.messages)
        return messages[turn].agent if turn < len(messages) else None

    def ended_for_length(self, row: int, transcript: Transcript) -> bool:
        """Whether an unchanged row ended here because a context was full."""
        return row in self.rollouts.full and len(transcript.messages) == len(self.rollouts.transcripts[row].messages)

    def verify(
        self, speaker: "AgentTrainer", contexts: dict[int, list[int]], rollouts: Rollouts
    ) -> dict[int, Message | tuple[int, ...]]:
        """
        What stays of the drafts of this turn: for each row that has one, the message, or the beginning of it.

        Args:
            speaker (`AgentTrainer`): Who speaks. All processes call this together.
            contexts (`dict[int, list[int]]`): For each row in which it speaks, the ids that it reads now.
            rollouts (`Rollouts`): The new rollouts, whose counters are brought up to date.
        """
        left, to_check = {}, {}
        for row in contexts:
            draft = self._draft(speaker.name, row, rollouts.transcripts[row])
            if draft is None:
                self._changed.add(row)
            elif row not in self._changed and (
                len(rollouts.transcripts[row].messages) < self._standing[row] or speaker.name != self._updated
            ):
                left[row] = draft
            else:
                to_check[row] = draft
        if self._speculative and union(speaker.accelerator, {True} if to_check else set()):
            left |= self._check(speaker, to_check, contexts, rollouts)
        rollouts.tokens_kept += sum(len(kept.ids if isinstance(kept, Message) else kept) for kept in left.values())
        return left

    def _draft(self, name: str, row: int, transcript: Transcript) -> Message | None:
        """The old message of this turn, if the same agent wrote it and it may stand or serve as a draft."""
        messages, turn = self.rollouts.transcripts[row].messages, len(transcript.messages)
        if turn >= len(messages) or messages[turn].agent != name:
            return None
        return messages[turn] if self._speculative or turn < self._standing[row] else None

    def _check(
        self, speaker: "AgentTrainer", drafts: dict[int, Message], contexts: dict[int, list[int]], rollouts: Rollouts
    ) -> dict[int, Message | tuple[int, ...]]:
        """Block verification of `drafts`, in as many chunks on every process."""
        left, rows = {}, list(drafts)
        old_contexts = [self._old_context(speaker.name, row, rollouts.transcripts[row]) for row in rows]
        pairs = [(old, contexts[row], list(drafts[row].ids)) for old, row in zip(old_contexts, rows, strict=True)]
        snapshot = self._snapshot if speaker.name == self._updated else None
        for row, (kept, replacement) in zip(rows, check_drafts(speaker, pairs, snapshot, rollouts), strict=True):
            draft = drafts[row]
            if kept == len(draft.ids):
                left[row] = draft
            else:
                self._changed.add(row)
                left[row] = (*draft.ids[:kept], replacement)
                rollouts.tokens_decoded += 1
                rollouts.tokens_kept -= 1  # counted with the beginning, but drawn
        return left

    def _old_context(self, name: str, row: int, transcript: Transcript) -> list[int]:
        turn, old = len(transcript.messages), self.rollouts.transcripts[row].messages
        return self.rollouts.views[name][row].context_of(sum(message.agent == name for message in old[:turn]))


def check_drafts(
    agent: "AgentTrainer",
    drafts: list[tuple[list[int], list[int], list[int]]],
    snapshot: Snapshot | None,
    rollouts: Rollouts,
) -> list[tuple[int, int]]:
    """
    Block verification of messages of `agent`, each given by its old context, its new one, and its ids.

    Args:
        agent (`AgentTrainer`): The author. All processes call this together; one may bring nothing.
        drafts (`list[tuple[list[int], list[int], list[int]]]`): Old context, new context and ids of each message.
        snapshot (`Snapshot`, *optional*): The policy that wrote them, if it is not the present one.
        rollouts (`Rollouts`): Whose counter of scored tokens is brought up to date.

    Returns:
        `list[tuple[int, int]]`: For each draft the number of ids that stay, and the one that follows where it was cut.
    """
    agent.lead.residency.use(agent)
    rows = agent.accelerator.gather(torch.tensor([len(drafts)], device=agent.args.device)).max().item()
    size = rows_per_chunk(agent, max((len(ids) for *_, ids in drafts), default=1), LOGITS_PER_CHUNK)
    verdicts, dummy = [], ([agent._tokenizer.pad_token_id],) * 3
    for start in range(0, rows, size):
        part = drafts[start : start + size]
        kept, replacement = _check_chunk(agent, part or [tuple(map(list, dummy))], snapshot)
        verdicts += list(zip(kept, replacement, strict=True))[: len(part)]
        rollouts.tokens_scored += sum(len(old) + len(new) + 2 * len(ids) for old, new, ids in part)
    return verdicts


@torch.no_grad()
def _check_chunk(
    agent: "AgentTrainer", drafts: list[tuple[list[int], list[int], list[int]]], snapshot: Snapshot | None
) -> tuple[list[int], list[int]]:
    device, pad_id = agent.args.device, agent._tokenizer.pad_token_id
    lengths = torch.tensor([len(ids) for *_, ids in drafts], device=device)
    tokens = pad([torch.tensor(ids) for *_, ids in drafts], padding_value=pad_id, padding_side="right").to(device)
    # One width for both: what is equal in the two passes is computed equally, to the bit
    width = max(len(context) for old, new, _ in drafts for context in (old, new))
    new_logps = _law(agent, [new for _, new, _ in drafts], tokens, lengths, width)
    with contextlib.nullcontext() if snapshot is None else snapshot.current_policy():
        old_logps = _law(agent, [old for old, *_ in drafts], tokens, lengths, width)
    positions = max(1, LOGITS_PER_CHUNK // (len(tokens) * agent.model.config.get_text_config().vocab_size))
    verdict = verify(old_logps, new_logps, tokens, lengths, positions)
    return verdict.kept.tolist(), verdict.replacement.tolist()


def _law(
    agent: "AgentTrainer", contexts: list[list[int]], tokens: torch.Tensor, lengths: torch.Tensor, width: int
) -> SampledLaw:
    """
    Log-probabilities of every token at each position of the messages `tokens`, as they are sampled: with temperature,
    top-k, top-p and min-p; shape `(rows, length, vocab)`.
    """
    pad_id, length = agent._tokenizer.pad_token_id, tokens.size(1)
    ids = torch.tensor([[pad_id] * (width - len(context)) + context for context in contexts], device=tokens.device)
    mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=tokens.device)
    inside = torch.arange(length, device=tokens.device) < lengths[:, None]
    call = {"input_ids": torch.cat([ids, tokens], dim=1), "attention_mask": torch.cat([mask, inside.long()], dim=1)}
    logits = compute_logits(agent, {**call, "logits_to_keep": length + 1, "use_cache": False})
    return SampledLaw(logits, sampling_transforms(agent), agent.temperature)


def sampling_transforms(agent: "AgentTrainer") -> LogitsProcessorList:
    """What `generate` does to the logits of `agent` after their division by the temperature, in its order."""
    transforms = LogitsProcessorList()
    if agent.top_k:
        transforms.append(TopKLogitsWarper(agent.top_k))
    if agent.top_p < 1.0:
        transforms.append(TopPLogitsWarper(agent.top_p))
    if agent.min_p:
        transforms.append(MinPLogitsWarper(agent.min_p))
    return transforms
