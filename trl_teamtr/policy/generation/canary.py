"""Whether a server speaks with the weights that were published to it, and not with its base or an older version."""

import torch

from ...conversation.view import View
from ..backend import Request, Written
from ..evaluating import evaluating
from ..scoring import message_mask
from ..speaker import Speaker


# Messages of a check, over all processes, and the most tokens of each
MESSAGES, TOKENS = 8, 16


def make_probes(speaker: Speaker, requests: list[Request]) -> list[Request]:
    """
    What this process asks an agent for a check: the beginnings of what it is about to be asked.

    Args:
        speaker ([`Speaker`]): The agent.
        requests (`list[Request]`): Those of this turn; of this agent there may be none.
    """
    count = max(1, MESSAGES // speaker.policy.accelerator.num_processes)
    own = [request for request in requests if request.agent == speaker.name][:count]
    return [Request(speaker.name, request.context, min(request.max_tokens, TOKENS)) for request in own]


@torch.no_grad()
def largest_difference(speaker: Speaker, probes: list[Request], answers: list[Written]) -> float:
    """
    Largest difference of the log-probabilities of a server and of the policy here, on the tokens of untruncated samples.

    Args:
        speaker ([`Speaker`]): The agent. All processes call this together; one may pass no messages.
        probes (`list[Request]`): What was asked.
        answers (`list[Written]`): The answers, with their log-probabilities.

    Returns:
        `float`: In nats; 0 without any token.
    """
    views = []
    for probe, answer in zip(probes, answers, strict=True):
        view = View(prompt_ids=list(probe.context))
        view.write(answer.ids, answer.logps)
        views.append(view)
    speaker.use()
    batch = speaker.view_batch(views or [View()])
    with evaluating([speaker.policy.model]):
        scored = speaker.token_logps(batch)
    difference = (batch["sampler_logps"] - scored).abs().masked_fill(message_mask(batch) == 0, 0.0)
    return speaker.policy.accelerator.gather(difference.max()).max().item()
