"""
Messages with calls of tools: sampled, resampled and scored as the exact distribution of the team on its world says.

Each world finds its state again in its own way: by a snapshot, by replaying, by beginning anew, or not at all.
"""

import pytest
from tool_teams import Dial, Lots, Saved, ToolCase, Untold, p_value


@pytest.mark.parametrize("world", [Untold, Dial, Saved, Lots])
def test_rollouts_on_a_world_have_the_law_of_the_team(tmp_path, world):
    case = ToolCase(tmp_path, world, "full", max_uses=2)
    assert p_value(case.rollouts(2000).transcripts, case.law()) > 1e-3
    case.update(0, seed=1)
    assert p_value(case.rollouts(2000).transcripts, case.law()) > 1e-3


RESAMPLED = [(Dial, "suffix"), (Dial, "speculative"), (Saved, "speculative"), (Lots, "suffix"), (Lots, "speculative")]


@pytest.mark.parametrize("world, mode", RESAMPLED)
@pytest.mark.parametrize("known", [False, True])
def test_resampled_rollouts_on_a_world_have_the_law_of_the_updated_team(tmp_path, world, mode, known):
    case = ToolCase(tmp_path, world, mode, max_uses=2)
    case.rollouts(2000)
    kept = 0
    for number, agent in enumerate((0, 1)):
        case.update(agent, seed=number, known=known and mode == "speculative")
        new = case.rollouts(2000)
        kept += new.tokens_kept
        assert p_value(new.transcripts, case.law()) > 1e-3 / len(RESAMPLED)
    assert kept > 0
