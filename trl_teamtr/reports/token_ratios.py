"""By how much an update has changed the probability of each token of its agent's messages, in the rollouts that are kept."""

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..conversation.streaming import IncrementalText
from ..conversation.view import View
from ..policy.evaluating import evaluating
from ..policy.speaker import Speaker
from ..trust_region.update import UpdateReport
from .transcript_log import KEPT


# Tokens of a message that are kept
MAX_TOKENS = 512


class TokenRatios:
    """
    Made before an update. Where the update does not measure the ratios of all tokens itself, those of the rollouts that
    are kept are scored before and after it.

    Args:
        speaker ([`Speaker`]): The agent that is updated. All processes call this together.
        batch (`dict`): Its batch, as [`~Speaker.token_logps`] takes it.
        measured (`bool`): Whether the update measures them.
    """

    def __init__(self, speaker: Speaker, batch: dict[str, Any], measured: bool):
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "sampled_ids")
        self._speaker, self._batch = speaker, {name: batch[name][:KEPT] for name in names}
        self._before = None if measured else self._score()

    def _score(self) -> torch.Tensor:
        with evaluating([self._speaker.policy.model]):
            return self._speaker.token_logps(self._batch)

    def after(self, report: UpdateReport) -> torch.Tensor | None:
        """
        log π_new - log π_cur of the tokens of (at least) the rollouts that are kept, in nats; `None` if the policy is
        unchanged.

        Returns:
            `torch.Tensor` of shape `(rows, completion length)`, meaningless for tokens that the agent did not sample.
        """
        if report.rejected or report.inner_steps == 0:
            return None
        return report.log_ratios if self._before is None else self._score() - self._before


def describe_tokens(tokenizer: PreTrainedTokenizerBase, view: View, log_ratios: torch.Tensor) -> list[dict[str, Any]]:
    """
    For each of the agent's messages what each token adds to its text, thoughts included, and the token's log-ratio; nothing of one
    that is not scored.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The agent's.
        view ([`View`]): Its view of a rollout.
        log_ratios (`torch.Tensor` of shape `(completion length,)`): Of the tokens of the view.
    """
    numbers, sampled = view.message_numbers(), view.sampled_ids
    found: list[dict[str, Any]] = [{} for _ in view.earlier]
    for number in range(len(view.earlier), view.num_messages):
        places = [place for place, own in enumerate(numbers) if own == number][:MAX_TOKENS]
        text = IncrementalText(tokenizer)
        pieces = [text.add(sampled[place]) for place in places]
        ratios = [round(value, 4) for value in log_ratios[places].tolist()]
        found.append({"sampled": pieces, "log_ratios": ratios})
    return found
