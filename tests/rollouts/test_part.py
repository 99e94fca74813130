"""
Messages with calls of tools: sampled, resampled and scored as the exact distribution of the team on its world says.

Each world finds its state again in its own way: by a snapshot, by replaying, by beginning anew, or not at all.
"""

import dataclasses

import pytest
import torch
from tool_teams import Dial, Lots, Saved, Sums, ToolCase, Untold, key, ordered_team, p_value, results_of

from trl_teamtr.rollouts.acting import Acting
from trl_teamtr.rollouts.drafts import Drafts
from trl_teamtr.rollouts.part import Part
from trl_teamtr.tools import World


def nightly(*case):
    return pytest.param(*case, marks=pytest.mark.nightly)


@pytest.mark.parametrize("world", [Untold, nightly(Lots)])
def test_rollouts_on_a_world_have_the_law_of_the_team(tmp_path, world):
    case = ToolCase(tmp_path, world, "full", max_uses=2)
    assert p_value(case.rollouts(TOTAL).transcripts, case.law()) > 1e-3


TOTAL = 1000
RESAMPLED = [
    (Dial, "speculative", True),
    (Lots, "speculative", False),
    nightly(Dial, "suffix", False),
    nightly(Saved, "speculative", False),
    nightly(Lots, "suffix", False),
    nightly(Lots, "speculative", True),
    nightly(Sums, "speculative", False),
]


def resample(folder, world, mode, known=False, updates=((0, 0), (1, 1))):
    """Its rollouts after each of `updates` (the agent, a seed), and their p-value."""
    torch.manual_seed(0)
    case = ToolCase(folder, world, mode, ordered_team() if world is Sums else None, max_uses=2)
    case.rollouts(TOTAL)
    for agent, seed in updates:
        case.update(agent, seed=seed, known=known)
        new = case.rollouts(TOTAL)
        law = case.law()
        yield new, min(p_value(new.transcripts, law), p_value(new.transcripts, law, results_of))


@pytest.mark.parametrize("world, mode, known", RESAMPLED)
def test_resampled_rollouts_on_a_world_have_the_law_of_the_updated_team(tmp_path, world, mode, known):
    kept = 0
    for new, p in resample(tmp_path, world, mode, known):
        assert p > 1e-3 / len(RESAMPLED) / 4
        kept += new.tokens_kept
        for transcript in new.transcripts:
            check_state(transcript, world)
    assert kept > 0


def check_state(transcript, world):
    """The environment is in the state that its rollout has reached."""
    results = [r for message in transcript.messages for use in message.tool_uses for r in use.results]
    if world is Sums:
        assert not results or world._say(transcript.world.team.total) == results[-1]
    elif world is Lots:
        assert transcript.world.team.last == (results[-1] if results else None)
    else:
        assert transcript.world.team.count == len(results)


def believe_anything(monkeypatch):
    """Let worlds take other results of their calls for what they were."""

    def replay(self, done, execute):
        self.reset()
        for each in done:
            execute(each)
        self.note(done)

    monkeypatch.setattr(World, "_replay", replay)


def keep_old_results(monkeypatch):
    """Keep an old result over a state that was made anew."""
    execute = Part._execute
    believe_anything(monkeypatch)

    def wrong(self, row, reading):
        use, number = execute(self, row, reading), len(self._open[row].uses)
        old = None if self._drafts is None else self._drafts.tool_use(self.speaker.name, row, self._rollouts, number)
        return use if old is None else dataclasses.replace(use, results=old.results)

    monkeypatch.setattr(Part, "_execute", wrong)


def drop_different_results(monkeypatch):
    """Drop the rollouts whose results are others than before."""
    changed = set()
    monkeypatch.setattr(Drafts, "change", lambda self, row: changed.add(row))
    monkeypatch.setattr(Part, "dropped", changed, raising=False)


def replay_nothing(monkeypatch):
    """Act on a state in which some of the calls have not been made."""
    reach = Acting.reach

    def wrong(self, transcript, author=None, uses=()):
        reach(self, dataclasses.replace(transcript, messages=transcript.messages[:-1]), author, uses)

    monkeypatch.setattr(Acting, "reach", wrong)


def keep_results_after_changes(monkeypatch):
    """Keep the result of a call although a teammate has changed the state meanwhile."""
    believe_anything(monkeypatch)

    def wrong(self, name, row, rollouts, number):
        turn, old = len(rollouts.transcripts[row].messages), self.rollouts.transcripts[row].messages
        uses = old[turn].tool_uses if turn < len(old) and old[turn].agent == name else ()
        return uses[number] if number < len(uses) else None

    monkeypatch.setattr(Drafts, "tool_use", wrong)


@pytest.mark.parametrize(
    "world, mode, updated, spoil",
    [
        (Lots, "speculative", 1, drop_different_results),
        (Dial, "speculative", 0, replay_nothing),
        nightly(Lots, "suffix", 1, keep_old_results),
        nightly(Dial, "speculative", 0, keep_results_after_changes),
    ],
)
def test_resampling_gone_wrong_has_another_law(tmp_path, monkeypatch, world, mode, updated, spoil):
    spoil(monkeypatch)
    torch.manual_seed(0)
    case = ToolCase(tmp_path, world, mode, max_uses=2)
    case.rollouts(2000)
    case.update(updated, seed=3, scale=0.1)
    new = case.rollouts(2000).transcripts
    dropped = vars(Part).get("dropped", ())
    kept, law = [transcript for row, transcript in enumerate(new) if row not in dropped], case.law()
    impossible = any(key(transcript) not in law for transcript in kept)
    assert impossible or min(p_value(kept, law), p_value(kept, law, results_of)) < 1e-4
