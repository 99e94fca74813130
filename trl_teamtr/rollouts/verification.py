"""Block verification of messages that were sampled in another context, or by an earlier policy."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from trl.trainer.utils import pad

from ..maths.block_verification import SampledLaw, verify
from ..policy.processes import largest
from ..policy.scoring import rows_per_chunk
from ..policy.speaker import Speaker
from ..policy.transforms import sampling_transforms
from ..trust_region.snapshot import Snapshot


# Maximum number of log-probabilities of one distribution in memory at a time: 128 MiB in float32. For a message that
# has more, the logits of both distributions are in memory in the model's dtype.
LOGITS_PER_CHUNK = 2**25


@dataclass
class Draft:
    """
    A message to verify.

    Args:
        old_context (`list[int]`): The context that it was sampled in.
        new_context (`list[int]`): Its author's current context.
        ids (`list[int]`): The message.
    """

    old_context: list[int]
    new_context: list[int]
    ids: list[int]


def count_scored(drafts: Sequence[Draft]) -> int:
    """Number of tokens, contexts included, of the two forward passes that verify `drafts`."""
    return sum(len(draft.old_context) + len(draft.new_context) + 2 * len(draft.ids) for draft in drafts)


def check_drafts(speaker: Speaker, drafts: list[Draft], snapshot: Snapshot | None) -> list[tuple[int, int]]:
    """
    Verify messages of `speaker`.

    Args:
        speaker ([`Speaker`]): The author. All processes call this together; one may pass no drafts.
        drafts (`list[Draft]`): The messages.
        snapshot (`Snapshot`, *optional*): The policy that sampled them, if it is not the current one.

    Returns:
        `list[tuple[int, int]]`: For each draft the number of ids kept, and the one that follows if it was cut.
    """
    speaker.use()
    rows = largest(speaker.policy.accelerator, len(drafts))
    longest = max((len(draft.ids) for draft in drafts), default=1)
    size = rows_per_chunk(speaker.policy, longest, LOGITS_PER_CHUNK)
    # A process without a draft still takes part in the forward passes
    pad_id, verdicts = speaker.tokenizer.pad_token_id, []
    for start in range(0, rows, size):
        part = drafts[start : start + size]
        kept, replacement = _check_chunk(speaker, part or [Draft([pad_id], [pad_id], [pad_id])], snapshot)
        verdicts += list(zip(kept, replacement, strict=True))[: len(part)]
    return verdicts


@torch.no_grad()
def _check_chunk(speaker: Speaker, drafts: list[Draft], snapshot: Snapshot | None) -> tuple[list[int], list[int]]:
    device, pad_id = speaker.policy.accelerator.device, speaker.tokenizer.pad_token_id
    lengths = torch.tensor([len(draft.ids) for draft in drafts], device=device)
    tokens = pad([torch.tensor(draft.ids) for draft in drafts], padding_value=pad_id, padding_side="right").to(device)
    # One width for both passes, so that equal inputs give bitwise equal results
    width = max(len(context) for draft in drafts for context in (draft.old_context, draft.new_context))
    new_law = _law(speaker, [draft.new_context for draft in drafts], tokens, lengths, width)
    with contextlib.nullcontext() if snapshot is None else snapshot.current_policy():
        old_law = _law(speaker, [draft.old_context for draft in drafts], tokens, lengths, width)
    positions = max(1, LOGITS_PER_CHUNK // (len(tokens) * speaker.policy.vocab_size))
    verdict = verify(old_law, new_law, tokens, lengths, positions)
    return verdict.kept.tolist(), verdict.replacement.tolist()


def _law(
    speaker: Speaker, contexts: list[list[int]], tokens: torch.Tensor, lengths: torch.Tensor, width: int
) -> SampledLaw:
    """
    Log-probabilities of every token at each position of the messages `tokens`, as they are sampled: with temperature,
    top-k, top-p and min-p; shape `(rows, length, vocab)`.
    """
    pad_id, length = speaker.tokenizer.pad_token_id, tokens.size(1)
    ids = torch.tensor([[pad_id] * (width - len(context)) + context for context in contexts], device=tokens.device)
    mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=tokens.device)
    inside = torch.arange(length, device=tokens.device) < lengths[:, None]
    call = {"input_ids": torch.cat([ids, tokens], dim=1), "attention_mask": torch.cat([mask, inside.long()], dim=1)}
    logits = speaker.policy.logits({**call, "logits_to_keep": length + 1, "use_cache": False})
    return SampledLaw(logits, sampling_transforms(speaker.sampling), speaker.sampling.temperature)
