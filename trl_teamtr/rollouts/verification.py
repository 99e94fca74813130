"""Block verification of messages that were sampled in another context, or by an earlier policy."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from trl.trainer.utils import pad

from ..maths.block_verification import SampledLaw, verify
from ..policy.batching import plan_passes
from ..policy.processes import largest
from ..policy.speaker import Speaker
from ..policy.transforms import sampling_transforms
from ..trust_region.snapshot import Snapshot
from ..trust_region.two_policies import TOKENS_PER_PASS, ScoredBatch, both_logits


# Maximum number of logits of one distribution in memory at a time: 128 MiB in float32
LOGITS_PER_CHUNK = 2**25


@dataclass
class Draft:
    """
    A message to verify.

    Args:
        old_context (`list[int]`): The context that it was sampled in.
        new_context (`list[int]`): Its author's current context.
        ids (`list[int]`): The message.
        cut (`bool`): Whether it is known not to be kept whole.
    """

    old_context: list[int]
    new_context: list[int]
    ids: list[int]
    cut: bool = False


def count_scored(drafts: Sequence[Draft]) -> int:
    """Number of tokens, contexts included, of the two forward passes that verify `drafts`."""
    return sum(len(draft.old_context) + len(draft.new_context) + 2 * len(draft.ids) for draft in drafts)


@torch.no_grad()
def check_drafts(speaker: Speaker, drafts: list[Draft], snapshot: Snapshot | None) -> list[tuple[int, int]]:
    """
    Verify messages of `speaker`, those of similar length together.

    Args:
        speaker ([`Speaker`]): The author. All processes call this together; one may pass no drafts.
        drafts (`list[Draft]`): The messages.
        snapshot (`Snapshot`, *optional*): The policy that sampled them, if it is not the current one.

    Returns:
        `list[tuple[int, int]]`: For each draft the number of ids kept, and the one that follows if it was cut.
    """
    speaker.use()
    policy, pad_id = speaker.policy, speaker.tokenizer.pad_token_id
    contexts = [max(len(draft.old_context), len(draft.new_context)) for draft in drafts]
    max_rows = max(1, LOGITS_PER_CHUNK // policy.vocab_size)
    plan = plan_passes(contexts, [len(draft.ids) for draft in drafts], TOKENS_PER_PASS, max_rows)
    # A process without a draft still takes part in the forward passes
    plan += [[]] * (largest(policy.accelerator, [len(plan)])[0] - len(plan))
    nothing = Draft([pad_id], [pad_id], [pad_id])
    batches = [_Batch(speaker, [drafts[row] for row in rows] or [nothing]) for rows in plan]
    transforms, temperature = sampling_transforms(speaker.sampling), speaker.sampling.temperature
    verdicts: dict[int, tuple[int, int]] = {}
    scored = both_logits(policy, [batch.scored for batch in batches], snapshot, more_calls=1)
    for rows, batch, both in zip(plan, batches, scored, strict=True):
        old, new = (SampledLaw(logits, transforms, temperature) for logits in both)
        verdict = verify(old, new, batch.tokens, batch.lengths, batch.scored.positions, batch.cut)
        # The dummy of a process without a draft has no row
        verdicts |= dict(
            zip(rows, zip(verdict.kept.tolist(), verdict.replacement.tolist(), strict=True), strict=False)
        )
    return [verdicts[row] for row in range(len(drafts))]


class _Batch:
    """Drafts as padded tensors."""

    def __init__(self, speaker: Speaker, drafts: list[Draft]):
        device, pad_id = speaker.policy.accelerator.device, speaker.tokenizer.pad_token_id
        ids = [torch.tensor(draft.ids) for draft in drafts]
        self.tokens = pad(ids, padding_value=pad_id, padding_side="right").to(device)
        self.lengths = torch.tensor([len(draft.ids) for draft in drafts], device=device)
        self.cut = torch.tensor([draft.cut for draft in drafts], device=device)
        length = self.tokens.size(1)
        self._inside = (torch.arange(length, device=device) < self.lengths[:, None]).long()
        # One width for both passes, so that equal inputs give bitwise equal results
        width = max(len(context) for draft in drafts for context in (draft.old_context, draft.new_context))
        self.scored = ScoredBatch(
            self._call([draft.old_context for draft in drafts], width, pad_id),
            self._call([draft.new_context for draft in drafts], width, pad_id),
            keep=length,
            positions=max(1, LOGITS_PER_CHUNK // (len(drafts) * speaker.policy.vocab_size)),
        )

    def _call(self, contexts: list[list[int]], width: int, pad_id: int) -> dict[str, torch.Tensor]:
        """Ids and mask of the messages after `contexts`, padded on the left to `width`."""
        device = self.tokens.device
        ids = torch.tensor([[pad_id] * (width - len(context)) + context for context in contexts], device=device)
        mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=device)
        return {
            "input_ids": torch.cat([ids, self.tokens], dim=1),
            "attention_mask": torch.cat([mask, self._inside], dim=1),
        }
