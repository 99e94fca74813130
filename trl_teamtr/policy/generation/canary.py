"""Whether vLLM speaks with the weights that were published to it, and not with its base or an older version."""

from collections.abc import Callable

import torch

from ...agents.settings import SamplingSettings
from ...conversation.view import View
from ..backend import Request, Written
from ..evaluating import evaluating
from ..scoring import message_mask
from ..speaker import Speaker


# Messages of a check, over all processes, and the most tokens of each
MESSAGES, TOKENS = 8, 16

# Answers to requests with a seed for each
Ask = Callable[[list[Request], list[int], SamplingSettings], list[Written]]


def check_published(speaker: Speaker, requests: list[Request], ask: Ask, bound: float, where: str, mend: str):
    """
    Let an agent say a few short messages, and raise unless their log-probabilities are those of its policy. All processes call
    this together.

    Args:
        speaker ([`Speaker`]): The agent.
        requests (`list[Request]`): What this process is about to ask; of this agent there may be none.
        ask (`Ask`): Asks vLLM.
        bound (`float`): Largest difference, in nats per token.
        where (`str`): Which vLLM that is, for the error.
        mend (`str`): What mends it, if the weights are not those of another version.

    Raises:
        `RuntimeError`: If a difference is larger, or NaN.
    """
    probes = make_probes(speaker, requests)
    # Seeds of their own: a resumed run publishes at other times, and draws the same numbers all the same
    answers = ask(probes, list(range(len(probes))), SamplingSettings(temperature=speaker.sampling.temperature))
    found = largest_difference(speaker, probes, answers)
    if not found <= bound:  # nor if it is NaN
        raise RuntimeError(
            f"Agent {speaker.name!r}: after its weights were published, the log-probabilities of {where} differ from its own by "
            f"{found:.3g} nats at a token, more than `vllm_max_logp_difference={bound}`. It speaks with other weights (its base, "
            f"or an older version), or in a lower precision. {mend}; raise the bound only for a known difference of precision."
        )


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
    Largest difference of the log-probabilities of vLLM and of the policy here, on the tokens of untruncated samples.

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
