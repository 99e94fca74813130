"""The time of a stage, from the speed of the device at hand."""

from collections.abc import Sequence

from ..rollouts.resampling import KEPT
from ..teamtr_config import TeamTRConfig
from .calibration import Speed, calibrate
from .memory import Batches, Member


# Seconds that the calibration may take
BUDGET = 10.0

# Share of the rollouts whose drafts are cut and completed in a turn, in speculative resampling (docs/performance.md)
CUT_SHARE = 0.1


def time_stage(
    members: Sequence[Member], batches: Batches, args: TeamTRConfig, resampling: str
) -> tuple[dict[str, float], str]:
    """
    Seconds of a stage of a team for its rollouts, for scoring and for updates, if all messages are as long as they may be and
    no update stops early; and the device. Rewards are not counted. Empty if the device is too slow to tell.
    """
    skeletons = {id(member.skeleton): member.skeleton for member in members}
    views = {id(member.skeleton): member.lengths.view for member in members}  # of the last agent with the model
    found = {
        key: calibrate(
            skeleton,
            args.device,
            str(args.mixed_precision),
            batches.micro_batch,
            views[key],
            BUDGET / len(skeletons),
        )
        for key, skeleton in skeletons.items()
    }
    known = {key: speed for key, speed in found.items() if speed is not None}
    if len(known) < len(found):
        return {}, str(args.device)
    speeds = [known[id(member.skeleton)] for member in members]
    trained = [number for number, member in enumerate(members) if member.skeleton.trainable]
    seconds = {
        "rollouts": _rollouts(members, speeds, trained, batches, args, resampling),
        "scoring": 0.0,
        "updates": 0.0,
    }
    for number in trained:
        tokens = batches.rollouts * members[number].lengths.view
        seconds["scoring"] += _scoring_passes(members[number], args) * tokens * speeds[number].forward
        seconds["updates"] += args.num_iterations * tokens * speeds[number].training
    return seconds, str(args.device)


def _rollouts(
    members: Sequence[Member],
    speeds: Sequence[Speed],
    trained: Sequence[int],
    batches: Batches,
    args: TeamTRConfig,
    resampling: str,
) -> float:
    rows = batches.rollouts
    if args.advantage_group == "rollout":
        return _team_rollouts(members, speeds, trained, rows, args, resampling)
    # Groups by turn: trunks of the team, and from an agent's first turn on the branches of each update
    trunks = rows / (args.num_generations or 1)
    total = _team_rollouts(members, speeds, trained, trunks, args, resampling)
    for updated in trained:
        for member, speed in zip(members, speeds, strict=True):
            skipped = _count_before(member, members[updated])
            total += _generate(member, speed, rows - trunks, skipped)
    return total


def _team_rollouts(
    members: Sequence[Member],
    speeds: Sequence[Speed],
    trained: Sequence[int],
    rows: float,
    args: TeamTRConfig,
    resampling: str,
) -> float:
    whole = sum(_generate(member, speed, rows, 0) for member, speed in zip(members, speeds, strict=True))
    if resampling in KEPT:
        return whole
    if resampling == "full":
        return whole * -(-len(trained) // args.resample_every)
    total = whole
    for updated in trained[:-1]:  # the updates that a later one of the stage follows
        for member, speed in zip(members, speeds, strict=True):
            skipped = _count_before(member, members[updated])
            if resampling == "suffix":
                total += _generate(member, speed, rows, skipped)
            else:
                total += _verify(member, speed, rows, skipped)
    return total


def _count_before(member: Member, updated: Member) -> int:
    """Number of messages of `member` before the first one of the updated agent."""
    return sum(context < updated.lengths.contexts[0] for context in member.lengths.contexts)


def _generate(member: Member, speed: Speed, rows: float, skipped: int) -> float:
    """Messages of an agent, without the first `skipped`."""
    contexts, message = member.lengths.contexts[: member.lengths.messages][skipped:], member.lengths.message
    reading = rows * sum(contexts) * speed.forward
    return reading + len(contexts) * message * (speed.step + max(0.0, rows - 1) * speed.row)


def _verify(member: Member, speed: Speed, rows: float, skipped: int) -> float:
    """Two forward passes over the drafts of an agent, and the completion of those that are cut."""
    contexts = member.lengths.contexts[: member.lengths.messages][skipped:]
    scored = 2 * rows * sum(context + member.lengths.message for context in contexts)
    return scored * speed.forward + _generate(member, speed, CUT_SHARE * rows, skipped)


def _scoring_passes(member: Member, args: TeamTRConfig) -> int:
    """Scoring passes over the rollouts of an update, without those of backtracking."""
    per_pass = -(-(args.steps_per_generation or 1) // (args.gradient_accumulation_steps or 1))
    if per_pass == 1:
        return int(member.kl_estimator is not None) * (2 if member.kl_estimator == "exact" else 1)
    measured = per_pass * args.num_iterations - 1 if member.kl_estimator is not None else 0
    return 1 + measured + int(member.kl_estimator is not None)
