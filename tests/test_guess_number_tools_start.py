"""The scripted agents from which guess-a-number is learned with its tools."""

import sys
from pathlib import Path

import pytest

from trl_teamtr.tasks.loading import load_split


sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from guess_number_tools import BOUND  # noqa: E402
from guess_number_tools_start import GAMES, NUMBERS, TASK, as_played, share_solved  # noqa: E402


@pytest.fixture(scope="module")
def rows():
    """One row for each number."""
    found = {row["secret"]: row for row in load_split("guess_number", "train", 300, 0, **TASK).to_list()}
    assert sorted(found) == sorted(NUMBERS)
    return list(found.values())


@pytest.mark.parametrize("arm, best", [("team", 1.0), ("alone", BOUND)])
def test_careful_scripts_play_as_well_as_can_be(arm, best, rows):
    """What can be reached is enumerated in tests/tasks/guess_number/test_guess_number_environment.py."""
    rollouts = GAMES[arm].play(as_played(arm, rows), 0.0, 0)
    assert share_solved(rollouts) == pytest.approx(best)
    uses = [use for transcript in rollouts.transcripts for message in transcript.messages for use in message.tool_uses]
    assert uses and not any(any(use.failed) for use in uses)


def test_scripts_that_overlook_everything_find_the_numbers_that_they_guess_anyway(rows):
    for arm, game in GAMES.items():
        rollouts = game.play(as_played(arm, rows), 1.0, 0)
        found = {
            row["secret"] for row, each in zip(rows, rollouts.transcripts, strict=True) if each.world.team.get_reward()
        }
        assert found == set(NUMBERS[:2])


def test_both_games_have_one_vocabulary_and_who_is_alone_is_told_so(rows):
    first, second = (game.make_tokenizer().get_vocab() for game in GAMES.values())
    assert first == second
    (view,) = GAMES["alone"].play(as_played("alone", rows[:1]), 0.0, 0).views["a"]
    assert second["alone"] in view.prompt_ids
    (view,) = GAMES["team"].play(as_played("team", rows[:1]), 0.0, 0).views["a"]
    assert second["alone"] not in view.context
