import json
import os
import pickle
import resource
import shutil
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from resuming import SETTINGS, StopAfter, final_state
from tiny import make_team, make_trainer
from transformers import TrainerCallback

from trl_teamtr import TeamTRTrainer
from trl_teamtr.runs.checkpoint import prepare_resume
from trl_teamtr.runs.manifest import verify, write_manifest


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
    assert {"team.json", "trainer_state.json", "rng_state.pth", "manifest.json"} <= {
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


ONE_STAGE = SETTINGS | {"num_stages": 1}


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """The folder of a run of two updates with a checkpoint after each; copy it before changing it."""
    folder = tmp_path_factory.mktemp("short")
    make_trainer(folder, make_team(2), **ONE_STAGE).train()
    return folder


@pytest.fixture
def run_dir(tmp_path, short_run):
    return shutil.copytree(short_run, tmp_path / "run")


def test_saved_team_is_no_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2))
    trainer.save_model()
    with pytest.raises(FileNotFoundError, match="is no checkpoint: it has no trainer_state.json.*trainer's `model`"):
        trainer.train(resume_from_checkpoint=str(tmp_path))


def test_damaged_checkpoint_is_refused_before_it_is_loaded(run_dir):
    (run_dir / "checkpoint-2" / "y" / "optimizer.pt").write_bytes(b"half")
    trainer = make_trainer(run_dir, make_team(2, seed=9), **SETTINGS)
    weights = [p.clone() for p in trainer.model.parameters()]
    with pytest.raises(ValueError, match="y/optimizer.pt has 4 of .*Resume from '.*checkpoint-1' instead"):
        trainer.train(resume_from_checkpoint=True)
    assert all(torch.equal(p, q) for p, q in zip(weights, trainer.model.parameters(), strict=True))


def test_checkpoint_of_weights_alone_has_a_manifest(tmp_path):
    make_trainer(tmp_path, make_team(1), save_only_model=True, **ONE_STAGE).train()
    manifest = json.loads((tmp_path / "checkpoint-1" / "manifest.json").read_text())
    assert "model.safetensors" in manifest and "optimizer.pt" not in manifest


def test_checkpoint_that_executes_code_is_refused_although_its_manifest_fits(tmp_path, run_dir):
    class Exploit:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    folder = run_dir / "checkpoint-2"
    for path in [*folder.rglob("*.pt"), *folder.rglob("*.pth")]:
        whole = path.read_bytes()
        torch.save({"state": Exploit(), "python": Exploit()}, path)
        write_manifest(str(folder), Accelerator(cpu=True))
        with pytest.raises(pickle.UnpicklingError, match="[Ww]eights.only"):
            make_trainer(run_dir, make_team(2), **SETTINGS).train(resume_from_checkpoint=True)
        path.write_bytes(whole)
    assert path.suffix == ".pth" and not (tmp_path / "executed").exists()


@pytest.mark.parametrize("limit, cause", [(9_000, "SafetensorError"), (17_000, "RuntimeError")])
def test_full_disk_leaves_the_last_checkpoint_and_says_so(tmp_path, limit, cause):
    """The system refuses to write files of more than `limit` bytes: the weights or, with more, the optimizer."""

    class FillDisk(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))

    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    trainer = make_trainer(tmp_path, make_team(2), callbacks=[FillDisk()], **ONE_STAGE)
    try:
        with pytest.raises((OSError, RuntimeError), match="could not be written") as caught:
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert type(caught.value.__cause__).__name__ == cause and "MiB left" in str(caught.value)
    assert f"The last whole checkpoint is {str(tmp_path / 'checkpoint-1')!r}" in str(caught.value)
    assert sorted(path.name for path in tmp_path.glob("*checkpoint*")) == ["checkpoint-1"]
    verify(str(tmp_path / "checkpoint-1"), trainer.accelerator)


def test_checkpoint_of_the_same_number_is_replaced_last(run_dir, monkeypatch):
    trainer = make_trainer(run_dir, make_team(2), **ONE_STAGE)
    renames, rename = [], os.rename
    monkeypatch.setattr(
        os, "rename", lambda a, b: (renames.append((os.path.basename(a), os.path.basename(b))), rename(a, b))
    )
    trainer.train()
    # Besides, each agent's folder within a checkpoint takes its place before the checkpoint does
    assert [names for names in renames if "checkpoint-2" in names] == [
        ("checkpoint-2", "tmp-replaced-checkpoint-2"),
        ("tmp-checkpoint-2", "checkpoint-2"),
    ]
    assert sorted(path.name for path in run_dir.glob("*checkpoint*")) == ["checkpoint-1", "checkpoint-2"]


def test_kill_between_the_two_renames_is_recovered_from(run_dir):
    (run_dir / "checkpoint-2").rename(run_dir / "tmp-replaced-checkpoint-2")
    shutil.copytree(run_dir / "checkpoint-1", run_dir / "tmp-replaced-checkpoint-1")
    shutil.copytree(run_dir / "checkpoint-1", run_dir / "tmp-checkpoint-2")
    trainer = make_trainer(run_dir, make_team(2), **SETTINGS)
    assert prepare_resume(trainer, [member.agent for member in trainer.members], True) == str(run_dir / "checkpoint-2")
    assert sorted(path.name for path in run_dir.glob("*checkpoint*")) == ["checkpoint-1", "checkpoint-2"]


@pytest.mark.parametrize(
    "resume, message",
    [
        (True, "There is no checkpoint in '.*new'"),
        ("nowhere/checkpoint-3", "There is no checkpoint 'nowhere/checkpoint-3'"),
    ],
)
def test_resume_from_nothing_is_refused(tmp_path, resume, message):
    accelerator = SimpleNamespace(wait_for_everyone=lambda: None)
    args = SimpleNamespace(output_dir=str(tmp_path / "new"), should_save=True)
    with pytest.raises(FileNotFoundError, match=message + ": leave `resume_from_checkpoint` out"):
        prepare_resume(SimpleNamespace(args=args, accelerator=accelerator), [], resume)


def test_resume_with_another_batch_is_refused(run_dir):
    trainer = make_trainer(run_dir, make_team(2), **SETTINGS | {"per_device_train_batch_size": 16})
    with pytest.raises(ValueError, match="`generation_batch_size=8`.*this run has 16"):
        trainer.train(resume_from_checkpoint=True)


def test_kill_while_an_old_checkpoint_is_removed_costs_no_whole_one(tmp_path, monkeypatch):
    """The part that is left has just been modified: it must not count as the newest."""
    settings = SETTINGS | {"save_total_limit": 2}
    rmtree = shutil.rmtree

    def cut_short(path, *args, **kwargs):
        if os.path.basename(path).endswith("checkpoint-1") and os.path.isdir(path):
            os.unlink(os.path.join(path, "team.json"))
            raise KeyboardInterrupt  # as good as a kill: nothing below `train` catches it
        rmtree(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", cut_short)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, make_team(2), **settings).train()
    monkeypatch.undo()
    for number in (2, 3):  # mtimes that are more than a second apart, as those of real checkpoints
        os.utime(tmp_path / f"checkpoint-{number}", (number, number))
    trainer = make_trainer(tmp_path, make_team(2), callbacks=[StopAfter(4)], **settings)
    trainer.train(resume_from_checkpoint=True)
    assert sorted(path.name for path in tmp_path.glob("*checkpoint*")) == ["checkpoint-3", "checkpoint-4"]
