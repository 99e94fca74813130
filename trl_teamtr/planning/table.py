"""A plan as text, for one screen."""

from collections.abc import Sequence

from .memory import GIB, KINDS, Member, Phase


MIB = 2**20


def team_lines(members: Sequence[Member]) -> list[str]:
    """One line for each agent: its model, and how much it says."""
    lines = [f"{'agent':<14}{'weights':>10}{'trained':>10}{'messages':>10}{'of tokens':>11}{'longest view':>14}"]
    for member in members:
        lengths, skeleton = member.lengths, member.skeleton
        counts = f"{_count(skeleton.num_parameters):>10}{_count(skeleton.num_trained):>10}"
        lines.append(f"{member.name:<14}{counts}{lengths.messages:>10}{lengths.message:>11}{lengths.view:>14}")
    return lines


def memory_lines(phases: Sequence[Phase], device_bytes: int | None, on_cpu: bool) -> list[str]:
    """One line for each phase; with what does not fit into `device_bytes` marked."""
    unit, name = (GIB, "GiB") if max(phase.total for phase in phases) >= GIB else (MIB, "MiB")
    columns = [*KINDS, "host", "total"] if on_cpu else [*KINDS, "device", "host"]
    lines = [f"{name:<14}" + "".join(f"{column:>12}" for column in columns) + "  agent"]
    for phase in phases:
        sizes = "".join(f"{getattr(phase, column) / unit:12.2f}" for column in columns)
        needed = phase.total if on_cpu else phase.device
        mark = "  does not fit" if device_bytes is not None and needed > device_bytes else ""
        lines.append(f"{phase.name:<14}{sizes}  {phase.agent}{mark}")
    return lines


def time_lines(seconds: dict[str, float], device: str) -> list[str]:
    """Seconds of a stage by part."""
    parts = ", ".join(f"{name} {value:.3g}" for name, value in seconds.items())
    return [f"seconds of a stage on {device}: {parts}, together {sum(seconds.values()):.3g}"]


def _count(number: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)
