r"""
How far the return of a team can change when a member is replaced by another policy, from the KL of their messages.

docs/theory.md derives it; tests/maths/test_swap_bound.py checks it on teams whose rollouts are enumerated.
"""

import math
from collections.abc import Sequence


def swap_bound(kl_by_turn: Sequence[float], width: float = 1.0) -> float:
    r"""
    $|J(\text{swapped}) - J(\text{old})| \le W \sqrt{\frac12 \sum_u KL_u}$: Pinsker's inequality on whole rollouts.

    Args:
        kl_by_turn (`Sequence[float]`): $KL_u$: KL(old ‖ new) of the member's message at its $u$-th turn, in nats, averaged over
            all rollouts of the old team, in its contexts; 0 for rollouts without such a turn.
        width (`float`): $W$: width of an interval that contains all returns.
    """
    return width * math.sqrt(sum(map(_positive, kl_by_turn)) / 2)


def swap_bound_by_turn(kl_by_turn: Sequence[float], width: float = 1.0) -> float:
    r"""
    The looser $W \sum_u \sqrt{KL_u / 2}$, which also holds with the KLs in the contexts of the *swapped* team. Arguments are
    those of [`swap_bound`].
    """
    return width * sum(math.sqrt(_positive(kl) / 2) for kl in kl_by_turn)


def _positive(kl: float) -> float:
    """An estimate from samples may be negative; the KL is not."""
    return max(kl, 0.0)
