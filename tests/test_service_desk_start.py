"""The scripted agents from which the service desk of the benchmarks learns, and what is learned of them."""

import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from trl_teamtr.tasks.loading import load_split
from trl_teamtr.tasks.service_desk.cases import FAULTS, load_case


sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from service_desk_start import GAME, TASK, share_solved  # noqa: E402


@pytest.fixture(scope="module")
def rows():
    """One row for each combination of faults and question."""
    found = {}
    for row in load_split("service_desk", "train", 400, 0, **TASK).to_list():
        case = load_case(row["case"])
        calls = {call.name for call in case["reference"]}
        found.setdefault((case["question"], *sorted(calls - {"look_up"})), row)
    assert len(found) == 3 * sum(1 for size in range(4) for _ in combinations(FAULTS, size))
    return list(found.values())


def test_careful_scripts_solve_every_case_with_tools_alone_and_words_they_know(rows):
    rollouts, tokenizer = GAME.play(rows, 0.0, 0), GAME.make_tokenizer()
    assert share_solved(rollouts, rows) == 1.0 and not rollouts.full and not rollouts.tools_without_room
    for row, transcript in zip(rows, rollouts.transcripts, strict=True):
        uses = [(message.agent, use) for message in transcript.messages for use in message.tool_uses]
        made = Counter((agent, call.name) for agent, use in uses for call in use.calls)
        wanted = Counter((call.party, call.name) for call in load_case(row["case"])["reference"])
        for calls in (made, wanted):  # what only looks
            del calls["user", "check_phone"], calls["assistant", "look_up"]
        assert made == wanted
        assert not any(failed for _, use in uses for failed in use.failed)
    for view in (view for views in rollouts.views.values() for view in views if view.num_messages):
        assert view.context.count(tokenizer.unk_token_id) == 1  # the list of tools


def test_scripts_that_overlook_everything_solve_the_case_in_which_nothing_is_to_be_done(rows):
    empty = sum(not load_case(row["case"])["reference"] for row in rows)
    assert empty == 1 and share_solved(GAME.play(rows, 1.0, 0), rows) == empty / len(rows)


def test_what_was_written_is_learned_and_nothing_that_was_read(rows):
    tokenizer, both = GAME.make_tokenizer(), GAME.make_demonstrations(rows, tuple(GAME.tools), 0.0, seed=1)
    own = GAME.make_demonstrations(rows, ("assistant",), 0.0, seed=1)
    assert len(own) < len(both) and {str(row) for row in own} < {str(row) for row in both}
    for row in own:
        learned = [token for token in row["labels"] if token != -100]
        written = tokenizer.decode(learned)
        assert "look_up" in written and "tool_response" not in written and "user" not in written
        assert all(label in (-100, token) for label, token in zip(row["labels"], row["input_ids"], strict=True))
        assert row["labels"][-1] == tokenizer.eos_token_id
