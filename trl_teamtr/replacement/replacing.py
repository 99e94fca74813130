"""Replaces, adds and removes members of a team. What fails leaves the team as it was."""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..agents.agent import Agent
from ..agents.history import ADDED, REMOVED, REPLACED, add_event
from ..conversation.transcript import Transcript
from ..conversation.view import View
from ..policy.making import load_members
from ..policy.speaker import Speaker
from ..returns.rewards import check_reward_funcs
from ..returns.scorer import RewardScorer
from ..team import Team
from .alignment import Teacher, align
from .alignment_config import AlignmentConfig
from .demonstrations import Restate, Translator, as_said, views_of
from .measuring import (
    Played,
    SwapMeasure,
    bounds_of,
    compare,
    estimate_kl,
    measure_cross_entropy,
    play,
    reason_against_bound,
)
from .probes import as_rows, split_probes, talk
from .report import ReplacementReport
from .seating import describe, find_member, team_of
from .unification import describe_unification, unify


def replace_member(
    team: Team,
    name: str,
    agent: Agent,
    probes: Iterable[Any] | None = None,
    args: AlignmentConfig | None = None,
    reward_funcs: Any = None,
    eval_prompts: Iterable[Any] | None = None,
    step: int | None = None,
) -> ReplacementReport:
    """
    Let `agent` take the place of member `name` of `team`, aligned to what that member says on probe prompts.

    The team changes once everything has succeeded. If `agent` has a loaded model, its weights are trained in place.

    Example:

    ```python
    >>> from trl_teamtr import Agent, Team
    >>> from trl_teamtr.replacement import AlignmentConfig, replace_member

    >>> team = Team.from_pretrained("run")
    >>> report = replace_member(team, "solver", Agent("solver", "Qwen/Qwen3-0.6B"), probes=prompts)
    >>> print(report)
    >>> team.save_pretrained("new")
    ```

    Args:
        team ([`Team`]): The team, changed in place. That of a trainer is changed by [`~TeamTRTrainer.replace_agent`].
        name (`str`): The member that leaves.
        agent ([`Agent`]): The member that comes, of the same name.
        probes (`Iterable`): Prompts on which the old team talks, which it was not trained on: texts, conversations, or rows of a
            dataset. They may be left out with `align=False`, if there are `eval_prompts`.
        args ([`AlignmentConfig`], *optional*): The options.
        reward_funcs (`RewardFunc` or `list[RewardFunc]`, *optional*): By which the swap shock is measured; not measured if not
            given.
        eval_prompts (`Iterable`, *optional*): Rows on which the shock is measured. Defaults to the held-out probes.
        step (`int`, *optional*): Updates of the run before the swap, for the history.

    Returns:
        [`ReplacementReport`]

    Raises:
        `ValueError`: If there is no such member, `agent` has another name, there are no probes, the new member's chat template
            cannot show the conversations or has no tools where it needs them, nothing of it can be trained, or
            `objective="kl"` and the vocabularies differ.
    """
    args = args if args is not None else AlignmentConfig()
    old = find_member(team, name)
    _check_name(name, agent)
    swap = _Swap(team, old, _rows(team, probes, eval_prompts, args), args, reward_funcs)
    newcomer = _load(team, unify(agent, old.agent, args))
    swapped = team_of(team, [newcomer if speaker is old else speaker.agent for speaker in team.speakers])
    before, after = describe(old.agent), describe(newcomer)
    report = ReplacementReport(name, before, after, describe_unification(args), step=step)
    swap.run(swapped, newcomer, report)
    event = {"event": REPLACED, "member": name, "step": step, "before": before, "after": after, "aligned": args.align}
    _take_over(team, swapped, event)
    return report


def add_member(
    team: Team,
    agent: Agent,
    position: int | None = None,
    demonstrator: Agent | None = None,
    probes: Iterable[Any] | None = None,
    args: AlignmentConfig | None = None,
    step: int | None = None,
) -> ReplacementReport:
    """
    Add a member to `team`, aligned to a demonstrator in its place, or not at all.

    Args:
        team ([`Team`]): The team, changed in place once everything has succeeded.
        agent ([`Agent`]): The new member.
        position (`int`, *optional*): Its place in team order; the last if not given.
        demonstrator ([`Agent`], *optional*): A member of the same name that talks in its place on the probes, e.g. a larger model.
        probes, args, step (*optional*): As in [`replace_member`].

    Returns:
        [`ReplacementReport`], compared with the demonstrator's team; without figures if there is no demonstrator.

    Raises:
        `ValueError`: If the team has a member of that name already, or as [`replace_member`].
    """
    if agent.name in team.names:
        raise ValueError(
            f"The team has a member {agent.name!r} already. Its members are {', '.join(team.names)}. Choose another name, or replace it."
        )
    args = args if args is not None else AlignmentConfig()
    if position is None:
        position = len(team.speakers)
    if not 0 <= position <= len(team.speakers):
        raise ValueError(f"`position` must be between 0 and {len(team.speakers)}, got {position}.")

    def with_member(new: Agent) -> Team:
        agents = [speaker.agent for speaker in team.speakers]
        return team_of(team, [*agents[:position], _load(team, new), *agents[position:]])

    if demonstrator is None:
        made = with_member(agent)
        after = describe(find_member(made, agent.name).agent)
        unification = dict.fromkeys(describe_unification(args), False)
        report = ReplacementReport(agent.name, "none", after, unification, step=step)
    else:
        made = with_member(demonstrator)
        report = replace_member(made, agent.name, agent, probes, args)
        report.step, after = step, report.after
        for speaker in made.speakers:  # the demonstrator was never a member
            speaker.agent.history = speaker.agent.history[:-1]
    event = {"event": ADDED, "member": agent.name, "step": step, "after": after, "aligned": demonstrator is not None}
    _take_over(team, made, event)
    return report


def remove_member(team: Team, name: str, step: int | None = None):
    """
    Remove a member of `team`. The others take turns by the same rules.

    Raises:
        `ValueError`: If there is no such member, or it is the only one.
    """
    old = find_member(team, name)
    if len(team.speakers) == 1:
        raise ValueError(f"{name!r} is the only member of the team, which would be empty. Replace it instead.")
    made = team_of(team, [speaker.agent for speaker in team.speakers if speaker is not old])
    _take_over(team, made, {"event": REMOVED, "member": name, "step": step, "before": describe(old.agent)})


def _check_name(name: str, agent: Agent):
    """Raise `ValueError` unless the new member has the name of the old one."""
    if agent.name != name:
        raise ValueError(
            f"The new member is called {agent.name!r}, but takes the place of {name!r}, whose name routers, private prompts and the "
            f"other members use. Write `Agent({name!r}, ...)`."
        )


def _load(team: Team, agent: Agent) -> Agent:
    """A copy of `agent` with its model and tokenizer, in the dtype of its own."""
    dtypes = {name: dtype for name, dtype in (team.settings.dtypes or {}).items() if name != agent.name}
    (loaded,) = load_members([agent], dataclasses.replace(team.settings, dtypes=dtypes or None))
    return loaded


def _take_over(team: Team, made: Team, event: dict[str, Any]):
    """Let the members of `made` be those of `team`."""
    add_event([speaker.agent for speaker in made.speakers], event)
    team.seat(made.speakers, made.rules, made.settings)


@dataclass(frozen=True)
class _Rows:
    """Rows of a dataset: for training, held out, and for the shock."""

    train: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    evaluated: list[dict[str, Any]]


def _rows(
    team: Team, probes: Iterable[Any] | None, eval_prompts: Iterable[Any] | None, args: AlignmentConfig
) -> _Rows:
    given = None if eval_prompts is None else as_rows(team, eval_prompts, "eval_prompts")
    if probes is None and given is not None and not args.align:
        return _Rows([], given, given)
    rows = as_rows(team, probes, "probes")
    train, held_out = split_probes(rows, args.num_probes, args.held_out_fraction, args.seed)
    return _Rows(train if args.align else [], held_out, held_out if given is None else given)


class _Swap:
    """
    The measurements and the alignment of one replacement.

    Args:
        team ([`Team`]): The old team.
        old ([`Participant`]): The member that leaves.
        rows ([`_Rows`]): On what the teams talk.
        args ([`AlignmentConfig`]): The options.
        reward_funcs (`RewardFunc` or `list[RewardFunc]`, *optional*): By which rollouts are scored.
    """

    def __init__(self, team: Team, old: Any, rows: _Rows, args: AlignmentConfig, reward_funcs: Any):
        self._team, self._old, self._rows, self._args = team, old, rows, args
        funcs = None if reward_funcs is None else check_reward_funcs(reward_funcs, None)
        self._scorer = None if funcs is None else RewardScorer(funcs, team.accelerator)

    def run(self, swapped: Team, newcomer: Agent, report: ReplacementReport):
        """Measure the swap without the alignment, align, and measure it again; `report` gets the figures."""
        args, new = self._args, find_member(swapped, newcomer.name)
        same_vocabulary = _same_vocabulary(self._old, new)
        if args.objective == "kl":
            _check_kl(self._old, new, same_vocabulary)
        clock = _Clock(report.seconds)
        train = talk(self._team, self._rows.train, args.generation_batch_size, args.seed)
        held_out = talk(self._team, self._rows.held_out, args.generation_batch_size, args.seed + 1)
        spoken = [message for each in (*train, *held_out) for message in each.messages]
        report.tokens_decoded = sum(message.num_tokens for message in spoken)
        report.num_probes, report.num_held_out = len(train), len(held_out)
        clock.stop("talking")
        played = self._play(self._team)
        clock.stop("measuring")
        if not isinstance(new, Speaker):
            if args.align:
                raise ValueError(
                    f"The new member {newcomer.name!r} is behind an endpoint, and cannot be trained here. Pass `align=False`."
                )
            report.unaligned = self._measure(played, swapped, new, held_out, None, same_vocabulary)
            clock.stop("measuring")
            return
        restate: Restate = as_said if args.objective == "kl" else Translator(new, args.map_calls)
        views = views_of(held_out, new, restate)
        report.unaligned = self._measure(played, swapped, new, held_out, views, same_vocabulary)
        clock.stop("measuring")
        report.num_skipped = sum(view is None for view in views)
        if args.align:
            own = views_of(train, new, restate)
            report.num_skipped += sum(view is None for view in own)
            self._align(newcomer, new, (train, own), (held_out, views), report)
            clock.stop("alignment")
            report.aligned = self._measure(played, swapped, new, held_out, views, same_vocabulary)
            clock.stop("measuring")

    def _align(self, newcomer: Agent, new: Speaker, train: Any, held_out: Any, report: ReplacementReport):
        """`train` and `held_out` are conversations and the new member's views of them."""
        (train_talks, train_views), (held_talks, held_views) = _shown(*train), _shown(*held_out)
        teacher = None
        if self._args.objective == "kl":
            theirs = [views_of(talks, self._old, as_said) for talks in (train_talks, held_talks)]
            # Where the old member said it, it had room
            teacher = Teacher(self._old, *[[view for view in each if view is not None] for each in theirs])
        cost = align(newcomer, new, train_views, held_views, self._args, teacher)
        report.steps, report.tokens_trained, report.losses = cost.steps, cost.tokens, cost.losses

    def _play(self, team: Team) -> Played:
        args = self._args
        rows, size = self._rows.evaluated, args.generation_batch_size
        return play(team, rows, args.samples_per_prompt, size, args.seed + 2, self._scorer)

    def _measure(
        self,
        played: Played,
        swapped: Team,
        new: Any,
        talks: Sequence[Transcript],
        views: Sequence[View | None] | None,
        same_vocabulary: bool,
    ) -> SwapMeasure:
        returns, shock, agreement = compare(played, self._play(swapped))
        if views is None:
            return SwapMeasure(
                returns, shock, agreement, None, None, without_bound="the new member is behind an endpoint"
            )
        cross_entropy, bits = measure_cross_entropy(new, talks, views)
        if not isinstance(self._old, Speaker):
            reason: str | None = "the old member is behind an endpoint"
        else:
            reason = reason_against_bound(self._old, new, talks, views, same_vocabulary)
        if reason is not None:
            return SwapMeasure(returns, shock, agreement, cross_entropy, bits, without_bound=reason)
        kl_by_turn, kl = estimate_kl(self._old, new, talks, views, same_vocabulary)
        bounds = bounds_of(kl_by_turn, self._args.return_width)
        return SwapMeasure(returns, shock, agreement, cross_entropy, bits, kl, *bounds)


def _shown(talks: Sequence[Transcript], views: Sequence[View | None]) -> tuple[list[Transcript], list[View]]:
    """Conversations in which the member speaks and that can be shown to it, and its views of them."""
    shown = [(each, view) for each, view in zip(talks, views, strict=True) if view is not None and view.num_messages]
    return [each for each, _ in shown], [view for _, view in shown]


def _same_vocabulary(old: Any, new: Any) -> bool:
    if not (isinstance(old, Speaker) and isinstance(new, Speaker)):
        return False
    sizes = {old.policy.vocab_size, new.policy.vocab_size}
    return len(sizes) == 1 and old.tokenizer.get_vocab() == new.tokenizer.get_vocab()


def _check_kl(old: Any, new: Any, same_vocabulary: bool):
    """Raise `ValueError` unless the distributions of both members are over the same tokens."""
    if same_vocabulary:
        return
    sizes = [
        f"{len(each.tokenizer.get_vocab())} tokens and {each.policy.vocab_size} logits"
        if isinstance(each, Speaker)
        else "none that is known here"
        for each in (old, new)
    ]
    raise ValueError(
        f"`objective='kl'` compares distributions over one vocabulary, but that of the old member {old.name!r} has {sizes[0]}, and "
        f"that of the new one {sizes[1]}, or other tokens. Use `objective='ce'`, which works across vocabularies."
    )


class _Clock:
    """Adds the time since the last stop to `seconds`."""

    def __init__(self, seconds: dict[str, float]):
        self._seconds, self._last = seconds, time.perf_counter()

    def stop(self, phase: str):
        now = time.perf_counter()
        self._seconds[phase] = self._seconds.get(phase, 0.0) + now - self._last
        self._last = now
