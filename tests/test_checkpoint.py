import json

import pytest
import torch
from tiny import make_team, make_trainer
from transformers import TrainerCallback

from trl_teamtr import TeamTRTrainer


class StopAfter(TrainerCallback):
    def __init__(self, updates):
        self.updates = updates

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step == self.updates


SETTINGS = {
    "num_stages": 5,  # 4 stages are an epoch, so that the run passes one
    "save_strategy": "steps",
    "save_steps": 1,
    "update_order": "random",
    "lr_scheduler_type": "linear",
    "trust_region_radius": 0.05,
}


def final_state(trainer):
    weights = [torch.cat([p.detach().flatten() for p in m.model.parameters()]) for m in trainer.members]
    timings = ("step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")
    logs = [{k: v for k, v in log.items() if k not in timings} for log in trainer.state.log_history[:-1]]
    return weights, [m.optimizer.state_dict()["state"] for m in trainer.members], logs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    trainer = make_trainer(tmp_path_factory.mktemp("whole"), make_team(2), **SETTINGS)
    trainer.train()
    return final_state(trainer), [m.controller.coef for m in trainer.members]


@pytest.mark.parametrize("updates", [1, 4, 8, 9], ids=["mid-stage", "stage", "epoch", "mid-stage-after-epoch"])
def test_resumed_run_equals_one_that_was_never_stopped(tmp_path, whole, updates):
    make_trainer(tmp_path, make_team(2), callbacks=[StopAfter(updates)], **SETTINGS).train()
    trainer = make_trainer(tmp_path, make_team(2, seed=9), **SETTINGS)  # other weights, which must not matter
    trainer.train(resume_from_checkpoint=True)
    (weights, optimizers, logs), coefs = whole
    resumed_weights, resumed_optimizers, resumed_logs = final_state(trainer)
    assert all(torch.equal(a, b) for a, b in zip(resumed_weights, weights, strict=True))
    torch.testing.assert_close(resumed_optimizers, optimizers, atol=0, rtol=0)
    assert [m.controller.coef for m in trainer.members] == coefs
    assert resumed_logs == logs


def test_checkpoints_are_whole_and_limited_in_number(tmp_path):
    make_trainer(tmp_path, make_team(2), **SETTINGS | {"num_stages": 2, "save_total_limit": 2}).train()
    assert sorted(p.name for p in tmp_path.glob("*checkpoint*")) == ["checkpoint-3", "checkpoint-4"]
    names = {p.name for p in (tmp_path / "checkpoint-4" / "y").iterdir()}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "config.json"} <= names
    assert {"team.json", "trainer_state.json", "rng_state.pth"} <= {
        p.name for p in (tmp_path / "checkpoint-4").iterdir()
    }


def test_half_a_checkpoint_of_a_killed_run_is_ignored_and_removed(tmp_path):
    make_trainer(tmp_path, make_team(2), callbacks=[StopAfter(2)], **SETTINGS).train()
    (tmp_path / "tmp-checkpoint-3").mkdir()
    (tmp_path / "tmp-checkpoint-3" / "team.json").write_text("half")
    trainer = make_trainer(tmp_path, make_team(2), **SETTINGS)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 10 and not (tmp_path / "tmp-checkpoint-3").exists()


def test_checkpoint_of_another_team_is_refused(tmp_path):
    make_trainer(tmp_path / "a", make_team(3), **SETTINGS | {"num_stages": 1}).train()
    trainer = make_trainer(tmp_path / "b", make_team(2), **SETTINGS)
    with pytest.raises(ValueError, match="its agents are x, y, z; this team's are x, y"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))


def test_best_team_is_loaded_at_the_end(tmp_path):
    trainer = make_trainer(
        tmp_path,
        make_team(2),
        **SETTINGS
        | {
            "num_stages": 2,
            "eval_strategy": "steps",
            "eval_steps": 1,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_reward",
            "greater_is_better": True,
        },
    )
    trainer.train()
    best = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())["best_model_checkpoint"]
    rewards = {log["step"]: log["eval_reward"] for log in trainer.state.log_history if "eval_reward" in log}
    assert best.endswith(f"checkpoint-{max(rewards, key=rewards.get)}")
    again = make_trainer(tmp_path / "again", make_team(2, seed=9))
    again.state.best_model_checkpoint = best
    again._load_best_model()
    for a, b in zip(trainer.members, again.members, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True))


def test_whole_team_is_pushed_with_each_checkpoint(tmp_path, monkeypatch):
    pushed = []

    def push(self, checkpoint):
        files = {path.name for path in tmp_path.rglob("*") if "checkpoint" not in str(path.relative_to(tmp_path))}
        pushed.append((checkpoint, {"team.json", "model.safetensors", "x", "y"} <= files))

    monkeypatch.setattr(TeamTRTrainer, "_push_from_checkpoint", push)
    monkeypatch.setattr(TeamTRTrainer, "init_hf_repo", lambda self, **kwargs: setattr(self, "hub_model_id", "me/team"))
    make_trainer(tmp_path, make_team(2), push_to_hub=True, **SETTINGS | {"num_stages": 1}).train()
    assert pushed == [(str(tmp_path / f"checkpoint-{update}"), True) for update in (1, 2)]
