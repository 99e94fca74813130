"""How far the messages of an update were sampled from the policy that scores them."""

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..maths.mismatch import Mismatch, mismatch
from ..policy.speaker import Speaker


@dataclass
class SamplingReport:
    """
    Sampler against scorer, on the messages of an agent that were sampled as they are; those that block verification kept or
    began are left out.

    Args:
        kl (`float`): KL(sampler ‖ scorer), k3 in nats per message.
        tv (`float`): Total variation distance of the messages.
        max (`float`): Largest difference of two log-probabilities of a token, in nats.
        ess (`float`): Effective number of the messages if they are weighed as samples of the scorer, as a share of them.
    """

    kl: float
    tv: float
    max: float
    ess: float

    def as_metrics(self) -> dict[str, float]:
        """Under its logged names."""
        return {f"sampling/{name}": value for name, value in dataclasses.asdict(self).items()}


@torch.no_grad()
def report_sampling(speaker: Speaker, micro_batches: Sequence[dict], radius: float | None) -> SamplingReport | None:
    """
    Compare the log-probabilities with which messages were sampled with those by which an update was decided. Warns if the
    KL exceeds half the radius.

    Args:
        speaker ([`Speaker`]): Whose messages they are. All processes call this together.
        micro_batches (`Sequence[dict]`): With `sampler_logps`, and `scored_logps` or `old_per_token_logps`.
        radius (`float`, *optional*): δ, in nats per message.

    Returns:
        [`SamplingReport`], or `None` if no message was sampled as it is.
    """
    found = []
    for part in micro_batches:
        scorer = part["scored_logps"] if "scored_logps" in part else part["old_per_token_logps"]
        found.append(mismatch(part["sampler_logps"], scorer, part["message_numbers"]))
    device = speaker.policy.accelerator.device
    own = torch.stack([torch.stack([part.double() for part in parts]) for parts in found])
    parts = speaker.policy.accelerator.gather(own.to(device))
    kl, tv, weight, square, _, messages = parts.sum(dim=0).tolist()
    if messages == 0:
        return None
    largest = Mismatch(*parts.T).largest.max().item()
    report = SamplingReport(kl / messages, tv / messages, largest, weight**2 / square / messages)
    if radius is not None and report.kl > radius / 2:
        warnings.warn(
            f"Agent {speaker.name!r}: its messages are sampled from a distribution that is {report.kl:.3g} nats per message "
            f"(`sampling/kl`) from the one that is trained, more than half its radius of {radius:.3g}. Use "
            "`speaking_precision='float16'`, or 'float32' if that is not enough, or shorter messages.",
            stacklevel=2,
        )
    return report
