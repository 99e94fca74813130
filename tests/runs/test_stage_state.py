"""The rollouts of a stage, written in its middle and read back."""

import torch
from resuming import SETTINGS, StopAfter
from tiny import make_team, make_trainer

from trl_teamtr.rollouts.resampling import StageRollouts
from trl_teamtr.runs.stage_state import load_stage, save_stage


def run(folder, updates, **fields):
    trainer = make_trainer(folder, make_team(2), callbacks=[StopAfter(updates)], **SETTINGS | fields)
    trainer.train()
    return trainer


def test_stage_is_read_back_as_it_was_written(tmp_path):
    trainer = run(tmp_path, 1, resampling="speculative", update_order="sequential")
    stage = trainer.resampler.stage
    found = load_stage(str(tmp_path / "checkpoint-1"), trainer.team.turn_loop, 1, trainer._restore_snapshot)
    assert found.rollouts.transcripts == stage.rollouts.transcripts
    assert found.rollouts.views["y"] == stage.rollouts.views["y"]
    assert (found.updated, found.num_served) == (stage.updated, 1) == ("x", 1)
    assert all(torch.equal(a, b) for a, b in zip(found.snapshot.weights, stage.snapshot.weights, strict=True))
    assert torch.equal(found.log_ratios, stage.log_ratios) and stage.log_ratios.any()
    now = [weight.clone() for weight in trainer.engine.weights]
    with found.snapshot.current_policy():
        assert any(not torch.equal(a, b) for a, b in zip(trainer.engine.weights, now, strict=True))


def test_nothing_is_written_at_a_stages_end(tmp_path):
    trainer = run(tmp_path, 2, resampling="speculative")
    assert not (tmp_path / "checkpoint-2" / "rollouts.json").exists()
    found = load_stage(str(tmp_path / "checkpoint-2"), trainer.team.turn_loop, 0, trainer._restore_snapshot)
    assert found == StageRollouts()


def test_a_stage_without_rollouts_leaves_no_file(tmp_path):
    save_stage(StageRollouts(), str(tmp_path), run(tmp_path / "run", 1).accelerator, should_save=True)
    assert list(tmp_path.glob("*.json")) == []
