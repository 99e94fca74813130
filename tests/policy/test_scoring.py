"""Scoring whole views, in one pass or in several."""

import pytest
import torch
from tiny import make_team, make_trainer

from trl_teamtr.policy.scoring import loss_mask


def test_log_probs_do_not_depend_on_the_size_of_the_passes(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), num_rounds=2)
    rollouts = trainer.team.collect([{"prompt": "au"}, {"prompt": "a"}] * 4)
    speaker = trainer.members[1].speaker
    batch = speaker.view_batch(rollouts.views["y"])
    found = [speaker.token_logps(batch, rows) * loss_mask(batch) for rows in (1, 3, 8, None)]
    assert (found[0][loss_mask(batch) == 1] < 0).all()
    for logps in found[1:]:
        torch.testing.assert_close(logps, found[0], atol=1e-5, rtol=1e-5)


def test_loss_mask_is_on_own_messages_alone(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), num_rounds=2)
    rollouts = trainer.team.collect([{"prompt": "au"}] * 3)
    batch = trainer.members[0].speaker.view_batch(rollouts.views["x"])
    own = [sum(len(m.ids) for m in t.messages if m.agent == "x") for t in rollouts.transcripts]
    assert loss_mask(batch).sum(1).tolist() == pytest.approx(own)
