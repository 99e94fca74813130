r"""
Estimators of the divergence of an update, $\mathrm{KL}(\pi_{cur}\|\pi_{new})$ (eq. 11), on samples of $\pi_{cur}$.

TRL's `beta` term is unrelated: it is the other direction, against a fixed reference.
"""

import torch


def k1_kl(old_logps: torch.Tensor, new_logps: torch.Tensor) -> torch.Tensor:
    r"""
    Eq. 11's estimator, per token: $-\ell$ with $\ell = \log\pi_{new}(x) - \log\pi_{cur}(x)$. Unbiased under π_cur; a
    single term may be negative.

    Args:
        old_logps, new_logps (`torch.Tensor`, float, same shape): Log-probabilities of the sampled tokens, in nats.
    """
    return old_logps - new_logps


def k3_kl(old_logps: torch.Tensor, new_logps: torch.Tensor) -> torch.Tensor:
    r"""
    Per token: $e^\ell - 1 - \ell$ with $\ell = \log\pi_{new}(x) - \log\pi_{cur}(x)$. Unbiased under π_cur, never
    negative, of lower variance than k1. Its gradient is zero at $\ell = 0$.

    Args:
        old_logps, new_logps (`torch.Tensor`, float, same shape): Log-probabilities of the sampled tokens, in nats.
    """
    log_ratio = new_logps - old_logps
    return torch.expm1(log_ratio) - log_ratio


@torch.no_grad()
def exact_kl(old_logits: torch.Tensor, new_logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    r"""
    $\mathrm{KL}(\pi_{cur}(\cdot|s,x_{<u})\|\pi_{new}(\cdot|s,x_{<u}))$ over the full vocabulary, per position. Summed
    over the tokens of a message of π_cur, its expectation is the KL of the messages (Lemma 3.2). Without gradient.

    Args:
        old_logits, new_logits (`torch.Tensor` of shape `(..., vocab)`): Logits, in the model's dtype.
        temperature (`float`): Divides the logits, in float32 as in `generate`.

    Returns:
        `torch.Tensor` of shape `(...)`, in float32 or more precisely, in nats.
    """
    old, new = (_log_softmax(logits, temperature) for logits in (old_logits, new_logits))
    difference = new.neg_().add_(old)
    return difference.mul_(old.exp_()).sum(dim=-1).clamp(min=0.0)


def _log_softmax(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    return (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(dim=-1)
