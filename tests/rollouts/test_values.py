"""The value of a message against enumeration."""

import pytest
from tiny import answer_reward, enumerate_rollouts, make_team, make_trainer
from tool_teams import Lots, Saved, ToolCase

from trl_teamtr.tools.worlds import TEAM


PROMPT = "au"


def exact(trainer, said, turn) -> tuple[float, float]:
    """Mean return given the messages up to `turn`, and given those before it."""
    found = []
    for length in (turn + 1, turn):
        total = mass = 0.0
        for rollout in enumerate_rollouts(trainer, PROMPT):
            if [m.ids for m in rollout.messages[:length]] == [m.ids for m in said[:length]]:
                messages = [[{"content": message.text} for message in rollout.messages]]
                total += rollout.probability * answer_reward(None, messages)[0]
                mass += rollout.probability
        found.append(total / mass)
    return found[0], found[1]


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_values_are_those_of_all_rollouts(tmp_path, turn):
    trainer, row = make_trainer(tmp_path, make_team(2), max_turns=3), {"prompt": PROMPT}
    rollouts = trainer.team.collect([row])
    said = rollouts.transcripts[0].messages
    found = trainer.value_of(row, rollouts, turn, num_rollouts=800)
    value, alternatives = exact(trainer, said, turn)
    assert abs(found.value - value) <= 4 * found.value_se + 1e-6
    assert abs(found.alternatives - alternatives) <= 4 * found.alternatives_se
    assert found.advantage == found.value - found.alternatives and found.advantage_se >= found.alternatives_se > 0
    assert (found.value_se < 1e-6) == (turn == 2)  # nothing follows the last message
    assert rollouts.transcripts[0].messages == said and len(said) == 3


def test_the_environments_of_the_rollout_stay_as_they_are(tmp_path):
    trainer = ToolCase(tmp_path, Saved, "full").trainer
    row = {"prompt": [{"role": "user", "content": "a"}]}
    for _ in range(50):
        rollouts = trainer.team.collect([row])
        if rollouts.transcripts[0].messages[0].tool_uses:
            break
    world = rollouts.transcripts[0].world
    count = world.environments[TEAM].count
    trainer.value_of(row, rollouts, 1, num_rollouts=20)
    assert world.environments[TEAM].count == count > 0


def test_what_cannot_be_told_is_refused(tmp_path):
    trainer, row = make_trainer(tmp_path / "plain", make_team(2)), {"prompt": PROMPT}
    rollouts = trainer.team.collect([row])
    with pytest.raises(ValueError, match="`turn` is 2, but the rollout has 2 messages: pass a number from 0 to 1"):
        trainer.value_of(row, rollouts, 2)
    with pytest.raises(ValueError, match="`num_rollouts` must be at least 1, got 0"):
        trainer.value_of(row, rollouts, 1, num_rollouts=0)
    case = ToolCase(tmp_path / "lots", Lots, "full")
    with pytest.raises(ValueError, match="`value_of` lets rollouts part after a common beginning"):
        case.trainer.value_of({"prompt": PROMPT}, rollouts, 0)
