"""What a run took in all, from its logs, each of which has the means over the updates since the one before."""

from collections.abc import Sequence
from typing import Any

from .phase_times import PHASES


def sum_up(logs: Sequence[dict[str, Any]], agents: Sequence[str]) -> dict[str, Any]:
    """
    Totals of a run.

    Args:
        logs (`Sequence[dict]`): The lines of its `log.jsonl`.
        agents (`Sequence[str]`): Those that were trained.

    Returns:
        `dict` with `updates`; `seconds` of each phase; `tokens_decoded` and `tokens_scored`; `reused`, the mean share of
        tokens that were reused; and `agents`, for each one `updates`, `rejected`, `backtracks` (numbers; exact if every
        update was logged), `kl_mean` and `kl_max` of accepted updates in nats per message, `radius` and `kl_floor`.
    """
    weighed, before = list[tuple[int, dict[str, Any]]](), 0
    for log in logs:
        if "reward" in log:  # of updates, not of an evaluation
            weighed.append((log["step"] - before, log))
            before = log["step"]

    def total(key: str) -> float:
        return sum(weight * log[key] for weight, log in weighed if key in log)

    updates = sum(weight for weight, _ in weighed)
    return {
        "updates": updates,
        "seconds": {phase: round(total(f"seconds/{phase}"), 3) for phase in PHASES},
        "tokens_decoded": round(total("rollout/tokens_decoded")),
        "tokens_scored": round(total("rollout/tokens_scored")),
        "reused": total("rollout/reused_fraction") / max(updates, 1),
        "agents": {name: _sum_up_agent(weighed, name, agents) for name in agents},
    }


def _sum_up_agent(weighed: Sequence[tuple[int, dict[str, Any]]], name: str, agents: Sequence[str]) -> dict[str, Any]:
    own = list[tuple[float, dict[str, Any]]]()
    for weight, log in weighed:
        updated = [agent for agent in agents if {f"agent/{agent}/kl", f"agent/{agent}/loss"} & log.keys()]
        if name in updated:  # with one log for several updates, each agent has had its share of them
            values = {
                key: log.get(f"agent/{name}/{key}") for key in ("kl", "rejected", "backtracks", "kl_floor", "radius")
            }
            own.append((weight / len(updated), values))
    accepted = [values["kl"] for _, values in own if values["kl"] is not None and not values["rejected"]]
    return {
        "updates": round(sum(share for share, _ in own)),
        "rejected": round(sum(share * (values["rejected"] or 0) for share, values in own)),
        "backtracks": round(sum(share * (values["backtracks"] or 0) for share, values in own)),
        "kl_mean": sum(accepted) / len(accepted) if accepted else None,
        "kl_max": max(accepted, default=None),
        "radius": own[-1][1]["radius"],
        "kl_floor": own[-1][1]["kl_floor"],
    }
