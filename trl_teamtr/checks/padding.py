"""Whether an agent's log-probabilities depend on what else is in the batch, and are those that it samples from."""

import sys
from typing import Any

import torch

from ..policy.evaluating import evaluating
from ..policy.policy import Policy
from ..policy.positions import takes_positions
from ..policy.precision import computes_in_tf32
from ..policy.speaker import Speaker


# Largest difference of two log-probabilities of a token, in nats. Rounding is 1e-6 in float32, 0.05 on average in bfloat16
TOLERANCE = 0.01
TOLERANCE_IN_TF32 = 0.1
TOLERANCE_IN_HALF_PRECISION = 1.0

# Number of rows, their length and that of the sampled message, and number of padding tokens before them
ROWS, LENGTH, PADDING = 4, 8, 32


@torch.no_grad()
def check_padding(speaker: Speaker):
    """
    Raise unless rows of the agent have the same log-probabilities without padding, with it (whatever its ids: an
    embedding of zeros would hide padding that is read, until it is trained), beside a row of the longest positions that
    its views can have, and where they were sampled. All processes call this together; no generator advances.

    Raises:
        `ValueError`: Names the agent, the two numbers, and what to change.
    """
    speaker.use()
    with evaluating([speaker.policy.model]), torch.random.fork_rng():
        torch.manual_seed(0)
        _check_scoring(speaker)
        _check_sampling(speaker)


def _check_scoring(speaker: Speaker):
    policy = speaker.policy
    ids = _some_ids(policy, ROWS, PADDING + LENGTH)
    rows, mask = ids[:, PADDING:], torch.ones_like(ids)
    mask[:, :PADDING] = 0
    alone = _score(policy, rows, mask[:, PADDING:])
    padded = _score(policy, ids, mask)[:, PADDING:]
    _compare(speaker, alone, padded, "alone", f"behind {PADDING} padding tokens", "Use another model.")
    if takes_positions(policy.model) and speaker.max_view_length < sys.maxsize:
        positions = torch.arange(LENGTH, device=ids.device).expand(2, -1).clone()
        positions[1] += speaker.max_view_length - LENGTH
        beside = _score(policy, rows[:1].expand(2, -1), torch.ones_like(positions), position_ids=positions)
        where = f"beside a row of {speaker.max_view_length} tokens, the longest that is allowed"
        _compare(speaker, alone[:1], beside[:1], "alone", where, _how_to_avoid_scaling(policy))


def _how_to_avoid_scaling(policy: Policy) -> str:
    rotary = policy.model.config.get_text_config().to_dict().get("rope_parameters") or {}
    begins = rotary.get("original_max_position_embeddings")
    length = f"{begins}, with which its" if begins is not None else "the length at which its"
    return (
        f"Its rotary embedding is scaled for the longest row of a batch. Set `max_context_length` to at most {length} "
        "scaling begins."
    )


def _check_sampling(speaker: Speaker):
    if speaker.max_view_length < 2 * LENGTH:
        return
    policy = speaker.policy
    ids, mask = _some_ids(policy, 1, LENGTH).repeat(2, 1), torch.ones(2, LENGTH, dtype=torch.long)
    mask[1, : LENGTH // 2] = 0
    mask = mask.to(ids.device)
    options: dict[str, Any] = {"max_new_tokens": LENGTH, "do_sample": True, "disable_compile": True}
    with policy.generating(options) as model:
        output = model.generate(
            input_ids=ids, attention_mask=mask, return_dict_in_generate=True, output_logits=True, **options
        )
    new = output.sequences[:, LENGTH:]
    logits = torch.stack(output.logits, dim=1).float() / speaker.sampling.temperature  # before any truncation
    sampled = logits.log_softmax(dim=-1).gather(-1, new[..., None]).squeeze(-1)
    scored = _score(policy, output.sequences, torch.cat([mask, torch.ones_like(new)], dim=1))[:, LENGTH - 1 :]
    for one, other in zip(sampled, scored, strict=True):
        _compare(
            speaker,
            one,
            other,
            "when it is sampled",
            "when it is scored",
            "Use another model.",
            policy.speaks_in_low_precision,
        )


def _compare(
    speaker: Speaker, one: torch.Tensor, other: torch.Tensor, where: str, elsewhere: str, remedy: str, in_half=False
):
    """Raise unless two log-probabilities of rows agree, of which one may be `in_half` precision."""
    difference = (one - other).abs().max().item()
    if in_half or speaker.policy.scoring_precision != "float32":
        tolerance = TOLERANCE_IN_HALF_PRECISION
    else:
        tolerance = TOLERANCE_IN_TF32 if computes_in_tf32(one.device) else TOLERANCE
    if not difference <= tolerance:  # the negation also catches NaN
        raise ValueError(
            f"The model of agent {speaker.name!r} gives the same row another probability: {one.mean().item():.4f} nats per "
            f"token {where}, {other.mean().item():.4f} {elsewhere} (largest difference {difference:.4f}, allowed "
            f"{tolerance}). Its rollouts would not have the distribution that is trained. {remedy}"
        )


def _some_ids(policy: Policy, rows: int, length: int) -> torch.Tensor:
    return torch.randint(policy.vocab_size, (rows, length)).to(policy.accelerator.device)


def _score(
    policy: Policy, ids: torch.Tensor, mask: torch.Tensor, position_ids: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Log-probabilities of all tokens but the first of each row. By the fused head: under ZeRO-3 DeepSpeed must see the
    modules of a training pass first, among which the head is not, or it fetches and releases the head at wrong times.
    """
    return policy.token_logps(ids, mask, ids[:, 1:], position_ids=position_ids)
