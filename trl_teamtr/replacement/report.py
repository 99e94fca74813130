"""What a replacement has done and cost: as JSON and as a table."""

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from .measuring import SwapMeasure


@dataclass
class ReplacementReport:
    """
    Of one replacement. Figures are of held-out prompts.

    Args:
        member (`str`): Whose place it is.
        before, after (`str`): The models of the old member and of the new one; `"none"` for a member that was added.
        unification (`dict[str, bool]`): The four switches: `system_prompt`, `thoughts_off`, `calls`, `alignment`.
        num_probes (`int`): Conversations of the old team to train on.
        num_held_out (`int`): Conversations of the old team to measure on.
        num_skipped (`int`): Of both, those that could not be shown to the new member.
        unaligned, aligned ([`SwapMeasure`], *optional*): What the swap does without the alignment, and with it.
        steps (`int`): Optimizer steps of the alignment.
        tokens_decoded (`int`): Tokens sampled for the probe conversations.
        tokens_trained (`int`): Tokens of the alignment, contexts included.
        seconds (`dict[str, float]`): Of `talking`, `alignment` and `measuring`.
        losses (`list[tuple[int, float]]`): Step and held-out loss of the alignment, in nats per token.
        step (`int`, *optional*): Updates of the run before the swap, if it is known.
    """

    member: str
    before: str
    after: str
    unification: dict[str, bool]
    num_probes: int = 0
    num_held_out: int = 0
    num_skipped: int = 0
    unaligned: SwapMeasure | None = None
    aligned: SwapMeasure | None = None
    steps: int = 0
    tokens_decoded: int = 0
    tokens_trained: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    losses: list[tuple[int, float]] = field(default_factory=list)
    step: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it: `None` for what is not finite."""
        return _finite(asdict(self))

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.as_dict())

    def __str__(self) -> str:
        lines = [f"{self.member}: {self.before} replaced by {self.after}"]
        done = [name for name, is_done in self.unification.items() if is_done]
        lines.append(f"protocol unified in: {', '.join(done) or 'nothing'}")
        measures = [("unaligned", self.unaligned), ("aligned", self.aligned)]
        for name, measure in measures:
            if measure is not None:
                lines += [f"{name}:"] + [f"  {what:<28}{value}" for what, value in _rows(measure)]
        total = sum(self.seconds.values())
        lines.append(
            f"cost: {self.tokens_decoded} tokens decoded, {self.tokens_trained} trained on in {self.steps} steps, {total:.1f} s; "
            f"{self.num_probes} probes, {self.num_held_out} held out, {self.num_skipped} left out"
        )
        return "\n".join(lines)


def _rows(measure: SwapMeasure) -> list[tuple[str, str]]:
    rows = []
    if measure.returns is not None:
        rows.append(("mean return, old and new", "{:.4f}, {:.4f}".format(*measure.returns)))
    if measure.shock is not None:
        rows.append(("swap shock", "{:+.4f} [{:+.4f}, {:+.4f}]".format(*measure.shock)))
    if measure.bound is not None:
        rows.append(("  at most", f"{measure.bound:.4f} (by turn {measure.bound_by_turn:.4f})"))
    if measure.without_bound is not None:
        rows.append(("  no bound", measure.without_bound))
    rows.append(("same final answer", f"{measure.agreement:.4f}"))
    if measure.cross_entropy is not None:
        rows.append(("cross-entropy", f"{measure.cross_entropy:.4f} nats per message"))
    if measure.bits_per_byte is not None:
        rows.append(("", f"{measure.bits_per_byte:.4f} bits per byte"))
    if measure.kl is not None:
        rows.append(("KL(old, new)", "{:.4f} ± {:.4f} nats per conversation".format(*measure.kl)))
    return rows


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
