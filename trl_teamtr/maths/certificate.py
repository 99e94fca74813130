r"""
The certificate of an update: a lower bound on the improvement of the team, measured on its rollouts.

Knows tensors and floats, not trainers. docs/theory.md derives every formula; tests/maths/test_bounds.py checks each of them
against the exact distribution of teams whose rollouts can be enumerated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .occupancy import surrogate_gain


def finite_horizon_penalty(kl_by_turn: Sequence[float], advantage_bound: float = 1.0) -> float:
    r"""
    Bound on how much the surrogate of an update on fresh rollouts overestimates its gain, for undiscounted rollouts
    (instead of Thm. 3.4): $\sqrt2 A_{max} \sum_u m_u \sqrt{\delta_u}$, where $m_u = T - 1 - u$ of the agent's $T$
    turns follow turn $u$. It is 0 for an agent that speaks once.

    Args:
        kl_by_turn (`Sequence[float]`): $\delta_u$ for each of the agent's own turns $u = 0, \dots, T - 1$: KL(π_cur ‖
            π_new) of its message there, in nats, averaged over *all* rollouts of π_cur (0 for those without such a
            turn). T is the largest number of own turns in a rollout.
        advantage_bound (`float`): $A_{max}$: width of an interval that contains all returns.
    """
    turns = len(kl_by_turn)
    weighted = sum((turns - 1 - u) * _root(kl) for u, kl in enumerate(kl_by_turn))
    return math.sqrt(2) * advantage_bound * weighted


def discounted_penalty(kl: float, gamma: float, advantage_bound: float = 1.0) -> float:
    r"""
    The same for discounted returns (Thm. 3.4): $c \sqrt\delta$ with $c = \sqrt2 \gamma A_{max} / (1 - \gamma)^2$.

    Args:
        kl (`float`): $\delta$: KL(π_cur ‖ π_new) of a message, in nats, averaged over the discounted occupancy
            $(1 - \gamma) \sum_t \gamma^t P(s_t)$ of π_cur, with 0 where another agent speaks or the rollout has ended.
        gamma (`float`): Discount per turn.
        advantage_bound (`float`): $A_{max}$: width of an interval that contains all discounted returns-to-go. If
            returns come with the last message, one that contains all returns and 0 suffices.

    Raises:
        `ValueError`: Unless `0 <= gamma < 1`.
    """
    if not 0 <= gamma < 1:
        raise ValueError(
            f"The discounted penalty needs 0 <= gamma < 1, got {gamma}: at 1 it is infinite. Use "
            "`finite_horizon_penalty` there."
        )
    return math.sqrt(2) * gamma * advantage_bound / (1 - gamma) ** 2 * _root(kl)


@dataclass
class StalePenalty:
    """
    Bound on the difference between surrogates on a stage's first and on fresh rollouts, in units of the return.

    Args:
        contexts (`float`): Due to agents updated earlier in the stage that speak *before* the agent's turns.
        returns (`float`): Due to such agents that speak *after* them: the returns are those of the old team.
    """

    contexts: float
    returns: float

    @property
    def total(self) -> float:
        return self.contexts + self.returns


def stale_penalty(
    kl_by_turn: Sequence[float], earlier_kl_by_turn: Sequence[float], advantage_bound: float = 1.0
) -> StalePenalty:
    r"""
    The constant that Prop. 3.3 leaves open. With $\alpha_t = \sqrt{\delta_t / 2}$ of the update at turn $t$,
    $\beta_v = \sqrt{\delta_v / 2}$ of the agents updated before it at turn $v$, $X_t = \sum_{v < t} \beta_v$ and
    $Y_t = \sum_{v > t} \beta_v$, summed over the agent's turns $t$:

    - contexts: $A_{max} (X_t + \min(X_t, \alpha_t))$,
    - returns: $A_{max} (\alpha_t + \min(\alpha_t, Y_t))$ if $Y_t > 0$.

    Args:
        kl_by_turn (`Sequence[float]`): For each turn of a rollout (of any agent), KL(π_cur ‖ π_new) of the update's
            agent in nats, averaged over the *stage's first* rollouts; 0 where it does not speak.
        earlier_kl_by_turn (`Sequence[float]`): The same for the agents updated earlier in the stage, from before to
            after their updates; as long as `kl_by_turn`.
        advantage_bound (`float`): $A_{max}$: width of an interval that contains all returns.
    """
    own = [_root(kl / 2) for kl in kl_by_turn]
    earlier = [_root(kl / 2) for kl in earlier_kl_by_turn]
    contexts = returns = 0.0
    for turn, alpha in enumerate(own):
        before, after = sum(earlier[:turn]), sum(earlier[turn + 1 :])
        if alpha != 0:
            contexts += before + min(before, alpha)
        if after != 0:
            returns += alpha + min(alpha, after)
    return StalePenalty(advantage_bound * contexts, advantage_bound * returns)


def horizon_radii(radius: float, num_turns: int) -> list[float]:
    r"""
    Radii for an agent's own turns, wider where fewer of them follow: $\delta_u = \delta (T / 2 m_u)^2$, with
    $m_u = T - 1 - u$, and 1/2 instead of 0 for the last turn, which costs nothing. Every other turn then has an
    equal share of [`finite_horizon_penalty`], and their sum is that of a radius of δ at each turn.

    Args:
        radius (`float`): δ, in nats per message.
        num_turns (`int`): $T$.
    """
    following = [*range(num_turns - 1, 0, -1), 0.5]
    return [radius * (num_turns / (2 * m)) ** 2 for m in following]


def leave_one_out_advantages(returns: torch.Tensor, group_size: int) -> torch.Tensor:
    r"""
    $A_g$: a return minus the mean of the *other* returns of its group. This baseline does not depend on the rollout
    itself, so the surrogate $(\rho - 1) A$ is unbiased.

    Args:
        returns (`torch.Tensor` of shape `(rows,)`): The rollouts of a prompt are consecutive.
        group_size (`int`): Rollouts per prompt, at least 2.
    """
    groups = returns.double().view(-1, group_size)
    return ((groups - groups.mean(dim=1, keepdim=True)) * group_size / (group_size - 1)).flatten()


def surrogate_terms(
    log_ratios: torch.Tensor,
    token_mask: torch.Tensor,
    message_index: torch.Tensor,
    advantages: torch.Tensor,
    scaled_advantages: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> torch.Tensor:
    r"""
    Four surrogates of an update on each rollout, from the one that the bound is for to the one that is optimised:

    0. $\sum_u (\rho_u - 1) A$, with the ratios $\rho_u = \prod_{x \in u} r_x$ of whole messages,
    1. $\sum_u (\rho_u - 1) \hat A$, with the advantage of eq. 9 instead of $A$,
    2. $\sum_x (r_x - 1) \hat A$, with the ratios of tokens,
    3. $\sum_x [\min(r_x \hat A, \mathrm{clip}(r_x) \hat A) - \hat A]$, clipped (eq. 10).

    Args:
        log_ratios (`torch.Tensor` of shape `(rows, length)`): $\log r_x = \log\pi_{new}(x) - \log\pi_{cur}(x)$.
        token_mask (`torch.Tensor` of shape `(rows, length)`): 1 on the agent's own tokens. The rest is ignored.
        message_index (`torch.Tensor` of shape `(rows, length)`, int): The agent's message that a token belongs to,
            counted from 0 in each row.
        advantages (`torch.Tensor` of shape `(rows,)`): $A$ ([`leave_one_out_advantages`]), in units of the return.
        scaled_advantages (`torch.Tensor` of shape `(rows,)`): $\hat A$: the normalised, clipped advantage, scaled back to
            units of the return.
        clip_low, clip_high (`float`): $r_x$ is clipped to `[1 - clip_low, 1 + clip_high]`.

    Returns:
        `torch.Tensor` of shape `(rows, 4)`, float64; zeros in rows in which the agent is silent.
    """
    own = token_mask.bool()
    log_ratios = torch.where(own, log_ratios.double(), 0.0)
    index = torch.where(own, message_index, 0)
    num_messages = int(index.max()) + 1 if index.numel() > 0 else 1
    per_message = log_ratios.new_zeros(len(log_ratios), num_messages).scatter_add(1, index, log_ratios)
    message_gain = torch.expm1(per_message).sum(dim=1)  # a missing message has log-ratio 0 and gains 0
    token_gain = torch.expm1(log_ratios).sum(dim=1)
    advantages, scaled = advantages.double(), scaled_advantages.double()
    trained = surrogate_gain(log_ratios, own, scaled, clip_low, clip_high)
    return torch.stack([message_gain * advantages, message_gain * scaled, token_gain * scaled, trained], dim=1)


@dataclass
class Certificate:
    r"""
    Lower bound on the gain of an update, in units of the return: the mean return rises by at least
    [`~Certificate.lower_bound`], up to the sampling error of the update's rollouts.

    Args:
        surrogate (`float`): $L$, unbiased.
        standard_error (`float`): Of `surrogate`, over groups; NaN if there is only one.
        trained (`float`): The clipped surrogate that was optimised.
        zeta_norm, zeta_ratio, zeta_clip (`float`): The parts of ζ: absolute differences between `surrogate` and
            `trained` due to normalised advantages, ratios of tokens instead of messages, and clipping.
        penalty (`float`): From [`finite_horizon_penalty`].
    """

    surrogate: float
    standard_error: float
    trained: float
    zeta_norm: float
    zeta_ratio: float
    zeta_clip: float
    penalty: float

    @property
    def lower_bound(self) -> float:
        """Never above `surrogate - penalty`, since each part of ζ is at least the difference that it covers."""
        return self.trained - self.penalty - self.zeta_norm - self.zeta_ratio - self.zeta_clip

    @classmethod
    def from_terms(cls, terms: torch.Tensor, group_size: int, penalty: float) -> "Certificate":
        """
        Args:
            terms (`torch.Tensor` of shape `(rows, 4)`): [`surrogate_terms`] of all rollouts, over all processes; those
                of a prompt are consecutive.
            group_size (`int`): Rollouts per prompt.
            penalty (`float`): In units of the return.
        """
        surrogate, *others = terms.mean(dim=0).tolist()
        steps = zip([surrogate, *others[:-1]], others, strict=True)
        zeta_norm, zeta_ratio, zeta_clip = (abs(after - before) for before, after in steps)
        groups = terms[:, 0].view(-1, group_size).mean(dim=1)
        error = (groups.std() / len(groups) ** 0.5).item() if len(groups) > 1 else math.nan
        return cls(surrogate, error, others[-1], zeta_norm, zeta_ratio, zeta_clip, penalty)


def _root(kl: float) -> float:
    """The square root of a KL whose estimate may be below 0 by rounding; NaN stays NaN."""
    return math.sqrt(max(kl, 0.0))
