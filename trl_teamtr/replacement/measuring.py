"""What a swap does to a team, measured on held-out prompts: the shock, the new member's cross-entropy, and the bound."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..conversation.transcript import Transcript
from ..conversation.view import View
from ..maths.swap_bound import swap_bound, swap_bound_by_turn
from ..policy.scoring import message_mask
from ..policy.speaker import Speaker
from ..returns.scorer import RewardScorer
from ..team import Team
from .demonstrations import Translator, as_said, view_of
from .probes import talk


# Conversations in a forward pass
_BATCH = 16


@dataclass(frozen=True)
class SwapMeasure:
    """
    What a swap does. `None` where something is not known.

    Args:
        returns (`tuple[float, float]`, *optional*): Mean return of the old team and of the swapped one on the evaluation prompts.
        shock (`tuple[float, float, float]`, *optional*): J(old team) − J(swapped team), paired by prompt, and its 95 %
            interval: 1.96 standard errors over prompts.
        agreement (`float`): Share of the conversations, drawn with the same seeds, with the same final answer.
        cross_entropy (`float`, *optional*): Of the old member's messages under the new one, in nats per message.
        bits_per_byte (`float`, *optional*): The same in bits per byte of their text.
        kl (`tuple[float, float]`, *optional*): Σ_u KL_u, in nats per conversation, and its standard error.
        bound (`float`, *optional*): W √(½ Σ_u KL_u): what the shock cannot exceed.
        bound_by_turn (`float`, *optional*): W Σ_u √(½ KL_u), looser.
        without_bound (`str`, *optional*): Why there is no bound.
    """

    returns: tuple[float, float] | None
    shock: tuple[float, float, float] | None
    agreement: float
    cross_entropy: float | None
    bits_per_byte: float | None
    kl: tuple[float, float] | None = None
    bound: float | None = None
    bound_by_turn: float | None = None
    without_bound: str | None = None


@dataclass(frozen=True)
class Played:
    """
    Conversations of a team on the evaluation prompts.

    Args:
        talks (`list[Transcript]`): All samples of a prompt are consecutive.
        returns (`torch.Tensor` of shape `(prompts,)`, *optional*): The mean return on each prompt, float64.
    """

    talks: list[Transcript]
    returns: torch.Tensor | None


def play(
    team: Team, rows: Sequence[dict[str, Any]], samples: int, batch_size: int, seed: int, scorer: RewardScorer | None
) -> Played:
    """Let `team` talk `samples` times on each of `rows`, with the same seeds as any other team, and score it."""
    repeated = [row for row in rows for _ in range(samples)]
    talks = talk(team, repeated, batch_size, seed)
    if scorer is None:
        return Played(talks, None)
    returns = scorer.score(repeated, talks).double().cpu().view(len(rows), samples)
    return Played(talks, returns.nanmean(dim=1))


def compare(old: Played, new: Played) -> tuple[tuple[float, float] | None, tuple[float, float, float] | None, float]:
    """The mean returns, the shock with its interval, and the agreement of two teams on the same prompts."""
    same = [a.final_text == b.final_text for a, b in zip(old.talks, new.talks, strict=True)]
    agreement = sum(same) / len(same)
    if old.returns is None or new.returns is None:
        return None, None, agreement
    differences = (old.returns - new.returns)[~(old.returns - new.returns).isnan()].tolist()
    if not differences:
        return None, None, agreement
    mean = statistics.mean(differences)
    half = 1.96 * statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    returns = float(old.returns.nanmean()), float(new.returns.nanmean())
    return returns, (mean, mean - half, mean + half), agreement


def logps_by_turn(speaker: Speaker, views: Sequence[View]) -> torch.Tensor:
    """
    Log-probabilities of the messages of `views` under the present weights of `speaker`, at its temperature.

    Returns:
        `torch.Tensor` of shape `(views, turns)`, float64, in nats; 0 for turns that a view does not have.
    """
    turns = max(1, max(view.num_messages for view in views))
    found = []
    for start in range(0, len(views), _BATCH):
        batch = speaker.view_batch(views[start : start + _BATCH])
        logps = (speaker.token_logps(batch) * message_mask(batch)).double()
        by_turn = torch.zeros(len(logps), turns, dtype=torch.float64, device=logps.device)
        found.append(by_turn.scatter_add_(1, batch["message_numbers"].clamp(min=0), logps).cpu())
    return torch.cat(found)


def measure_cross_entropy(
    speaker: Speaker, talks: Sequence[Transcript], views: Sequence[View | None]
) -> tuple[float, float | None]:
    """
    Cross-entropy of the old member's messages under the new one: in nats per message, and in bits per byte.

    Args:
        speaker ([`Speaker`]): The new member.
        talks (`list[Transcript]`): Conversations of the old team.
        views (`list[View]`): The new member's views of them; `None` for those that cannot be shown to it.
    """
    shown = [(talk, view) for talk, view in zip(talks, views, strict=True) if view is not None and view.num_messages]
    total = -logps_by_turn(speaker, [view for _, view in shown]).sum().item()
    texts = [message.text for talk, _ in shown for message in talk.messages if message.agent == speaker.name]
    size = sum(len(text.encode()) for text in texts)
    return total / len(texts), total / math.log(2) / size if size else None


def reason_against_bound(
    old: Speaker, new: Speaker, talks: Sequence[Transcript], views: Sequence[View | None], same_vocabulary: bool
) -> str | None:
    """Why the KL of the messages of `old` from those of `new` cannot be estimated from `talks`; `None` if it can."""
    own = [message for talk in talks for message in talk.messages if message.agent == old.name]
    shown = [view_of(talk, new, as_said) for talk in talks] if same_vocabulary else views
    if any(view is None for view in shown):
        return "some conversations cannot be shown to the new member"
    if any(message.thought or message.tool_uses for message in own):
        return "messages with thoughts or calls of tools are restated as others"
    for speaker in (old, new):
        sampling = speaker.sampling
        if sampling.top_p < 1 or sampling.top_k or sampling.min_p or sampling.repetition_penalty != 1:
            return "messages are sampled from truncated or penalised distributions"
    if same_vocabulary:
        return None
    if not all(message.finished for message in own):
        return "messages were cut at the length limit, which counts other tokens for the new member"
    # Else the probability of a text is more than that of the ids that were sampled
    again = [view_of(talk, old, Translator(old, True)) for talk in talks]
    sampled = [view_of(talk, old, as_said) for talk in talks]
    if any(a is None or b is None or a.sampled_ids != b.sampled_ids for a, b in zip(again, sampled, strict=True)):
        return "the old member did not write its messages in the tokens into which its tokenizer divides them"
    return None


def estimate_kl(
    old: Speaker, new: Speaker, talks: Sequence[Transcript], views: Sequence[View | None], same_vocabulary: bool
) -> tuple[list[float], tuple[float, float]]:
    """
    KL(old ‖ new) of the messages at each turn of the member, from samples of the old team, in its contexts. In one vocabulary it is
    that of the sampled ids, else that of the texts.

    Returns:
        `tuple`: the KL of each turn, averaged over all conversations, and their sum with its standard error.
    """
    own = [view_of(talk, old, as_said) for talk in talks]
    theirs = [view_of(talk, new, as_said) for talk in talks] if same_vocabulary else views
    both = [(a, b) for a, b in zip(own, theirs, strict=True) if a is not None and b is not None]
    ratios = logps_by_turn(old, [a for a, _ in both]) - logps_by_turn(new, [b for _, b in both])
    total = ratios.sum(dim=1)
    error = (total.std() / math.sqrt(len(total))).item() if len(total) > 1 else math.inf
    return ratios.mean(dim=0).tolist(), (total.mean().item(), error)


def bounds_of(kl_by_turn: Sequence[float], width: float) -> tuple[float, float]:
    """The two bounds of the shock."""
    return swap_bound(kl_by_turn, width), swap_bound_by_turn(kl_by_turn, width)
