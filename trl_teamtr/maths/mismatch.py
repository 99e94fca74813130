r"""
How far the distribution that messages are sampled from is from the one that scores them: with log-ratios
$\Delta_t = \log p(y_t) - \log \tilde p(y_t)$ of the scorer $p$ and the sampler $\tilde p$, on samples of $\tilde p$.
"""

from typing import NamedTuple

import torch


class Mismatch(NamedTuple):
    """
    Sums over messages, which processes may add up.

    Args:
        kl (`torch.Tensor`): Of the k3 estimates of $\\mathrm{KL}(\\tilde p \\| p)$, in nats.
        tv (`torch.Tensor`): Of $(1 - e^{\\Delta})^+$, where $\\Delta$ is the sum over the tokens of a message: its mean is the
            total variation distance of the messages, without bias.
        weight, square (`torch.Tensor`): Of $w = e^{\\Delta}$ and of $w^2$: with them, messages of $\\tilde p$ are weighed as
            those of $p$, and $(\\sum w)^2 / \\sum w^2$ is their effective number.
        largest (`torch.Tensor`): The largest $|\\Delta_t|$ of a token, in nats.
        messages (`torch.Tensor`): Number of messages.
    """

    kl: torch.Tensor
    tv: torch.Tensor
    weight: torch.Tensor
    square: torch.Tensor
    largest: torch.Tensor
    messages: torch.Tensor


def mismatch(sampler: torch.Tensor, scorer: torch.Tensor, numbers: torch.Tensor) -> Mismatch:
    """
    The mismatch of sampler and scorer on the messages that the sampler wrote to the end.

    Args:
        sampler (`torch.Tensor` of shape `(rows, length)`): Log-probabilities of tokens when they were sampled; NaN where that
            is not known, as in messages that block verification kept.
        scorer (`torch.Tensor` of that shape): Their log-probabilities when they are scored.
        numbers (`torch.Tensor` of that shape, int64): Which of the messages of its row a token belongs to; -1 for none.

    Returns:
        [`Mismatch`]
    """
    rows, places = len(numbers), numbers.clamp(min=0)
    of_message, delta = numbers >= 0, scorer.double() - sampler.double()
    per_token = torch.stack([delta, delta.exp() - 1 - delta, delta.isnan().double()])
    zeros = per_token.new_zeros(3, rows, int(places.max()) + 1)
    index = places.expand(3, -1, -1)
    log_ratio, kl, unknown = zeros.scatter_add(2, index, per_token.nan_to_num() * of_message)
    written = zeros[0].scatter_add(1, places, of_message.double()) > 0
    whole = written & (unknown == 0)
    tokens, weights = of_message & whole.gather(1, places), log_ratio[whole].exp()
    return Mismatch(
        kl[whole].sum(),
        (1 - weights).clamp(min=0).sum(),
        weights.sum(),
        weights.square().sum(),
        delta[tokens].abs().max() if tokens.any() else delta.new_zeros(()),
        whole.sum(),
    )
