"""Groups by turn: rollouts that begin alike, and part at a turn of the agent that is updated."""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import torch

from ..maths.turn_groups import branch_turns, group_weights
from .acting import Acting
from .drafts import Drafts
from .rollouts import Rollouts
from .turn_loop import TurnLoop


class Branches:
    """
    Makes the groups of `advantage_group="turn"`. Each has one of the team's rollouts, its trunk, and G - 1 branches: the trunk's
    messages before the turn at which they part, and what the present team says from there on.

    What is random besides the policies is the same in all rollouts of a group up to there: the router's choices, the
    private prompts, the state of the environments. A branch has its trunk's seed, so that a router that draws by it draws
    the same later on, which changes no mean: the gradient for each seed is that of the mean return for this seed.

    With `"suffix"` all rollouts of a group have the team's distribution; with `"message"` the trunks do, and the branches
    only where the agent has the same number of turns in every rollout.

    Args:
        turn_loop ([`TurnLoop`]): The team's.
        num_generations (`int`): G.
        credit (`str`): `"suffix"` or `"message"`.
    """

    def __init__(self, turn_loop: TurnLoop, num_generations: int, credit: str):
        self._turn_loop, self.num_generations, self._credit = turn_loop, num_generations, credit

    def trunk_rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows of the trunks, one for each prompt; `rows` has each prompt `num_generations` times."""
        return list(rows[:: self.num_generations])

    def grow(self, trunks: Rollouts, name: str) -> Rollouts:
        """
        The groups of the update of agent `name`. All processes call this together.

        Args:
            trunks ([`Rollouts`]): Of the present team. They are the first rollouts of their groups, and unchanged.

        Returns:
            [`Rollouts`]: `num_generations` consecutive rows for each of `trunks`, with their weights and, with
                `"message"`, what is trained. Their counters are those of the trunks too.
        """
        parting = [self._draw(transcript.turns_of(name)) for transcript in trunks.transcripts]
        lengths = [len(transcript.messages) for transcript in trunks.transcripts]
        standing = []
        for turn, length in zip(parting, lengths, strict=True):
            standing += [length, *[length if turn is None else turn] * (self.num_generations - 1)]
        found = self._turn_loop.resample(
            Drafts(repeat(trunks, self.num_generations, self._turn_loop.acting), updated=None, standing=standing)
        )
        own = torch.tensor([len(transcript.turns_of(name)) for transcript in trunks.transcripts])
        found.weights = group_weights(own, self.num_generations, self._credit)
        if self._credit == "message":
            found.team_every = self.num_generations
            found.credited = torch.tensor(
                [
                    -1 if turn is None else transcript.turns_of(name).index(turn)
                    for transcript, turn in zip(trunks.transcripts, parting, strict=True)
                ]
            ).repeat_interleave(self.num_generations)
        self._count(found, trunks)
        return found

    def _draw(self, own_turns: list[int]) -> int | None:
        turns = branch_turns(own_turns, self._credit)
        return random.choice(turns) if turns else None

    def _count(self, found: Rollouts, trunks: Rollouts):
        """Add what the trunks cost; of the messages that the groups kept, those of the trunks themselves were not reused."""
        found.tokens_kept += trunks.tokens_kept - sum(
            message.num_tokens for transcript in trunks.transcripts for message in transcript.messages
        )
        found.tokens_decoded += trunks.tokens_decoded
        found.tokens_scored += trunks.tokens_scored
        found.tools_without_room += trunks.tools_without_room
        for name, seconds in trunks.tool_seconds.items():
            found.tool_seconds[name] += seconds


def repeat(rollouts: Rollouts, times: int, acting: Acting) -> Rollouts:
    """Each rollout `times` times, every one after the first with environments of its own. All processes call this together."""
    transcripts = [dataclasses.replace(each) for each in rollouts.transcripts for _ in range(times)]
    acting.fork([each for row, each in enumerate(transcripts) if row % times])
    views = {name: [view for view in views for _ in range(times)] for name, views in rollouts.views.items()}
    full = {row * times + number: name for row, name in rollouts.full.items() for number in range(times)}
    return Rollouts(transcripts, views, full)


def make_branches(turn_loop: TurnLoop, args: Any) -> Branches | None:
    """What makes the groups of `args`, a [`TeamTRConfig`]; `None` if they are groups by rollout."""
    return Branches(turn_loop, args.num_generations, args.credit) if args.advantage_group == "turn" else None
