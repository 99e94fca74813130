"""A member is replaced between stages of a run: it starts anew, the others go on, and what does not fit is refused."""

import json
import os
import shutil

import pytest
import torch
from newcomers import make_newcomer
from resuming import SETTINGS, StopAfter, final_state
from tiny import make_model, make_team, make_tokenizer, make_trainer, weights

from trl_teamtr import Agent, load_team


FIELDS = SETTINGS | {"save_steps": 2}


def stopped_run(folder, updates=4, team=None, **fields):
    """A run of five stages that ends after some of them."""
    trainer = make_trainer(
        folder, make_team(2, 4) if team is None else team, callbacks=[StopAfter(updates)], **FIELDS | fields
    )
    trainer.train()
    return trainer


def resume(path, folder, callbacks=(), **fields):
    trainer = make_trainer(folder, str(path), callbacks=list(callbacks), **FIELDS | fields)
    trainer.train(resume_from_checkpoint=str(path))
    return trainer


@pytest.fixture(scope="module")
def swapped(tmp_path_factory):
    """The checkpoint of a run after two stages, whose first member (the lead), or second, was replaced."""
    found = {}
    for name in "xy":
        folder = tmp_path_factory.mktemp(name) / "run"
        trainer = stopped_run(folder)
        old = {member.name: (weights(member.model), member.optimizer.state_dict()) for member in trainer.members}
        shutil.copytree(folder / "checkpoint-4", folder.parent / "before" / "checkpoint-4")
        path = trainer.replace_agent(make_newcomer(name), aligned=False)
        found[name] = folder, path, old, trainer.members
    return found


@pytest.mark.parametrize("name", ["x", "y"])
def test_the_new_member_starts_anew_and_the_others_go_on(swapped, tmp_path, name):
    _, path, old, _ = swapped[name]
    (other,) = {*"xy"} - {name}
    assert path.endswith("checkpoint-4")
    trainer = make_trainer(tmp_path, path, **FIELDS | {"num_stages": 2})
    trainer.train(resume_from_checkpoint=path)  # nothing is left to do
    members = {member.name: member for member in trainer.members}
    assert members[name].joined == 4 and members[other].joined == 0
    newcomer = make_newcomer(name).model
    assert all(torch.equal(newcomer.get_parameter(key), own) for key, own in members[name].model.named_parameters())
    assert not members[name].optimizer.state_dict()["state"]
    assert members[name].controller.coef == trainer.args.kl_coef and members[name].floors.scoring is None
    assert all(torch.equal(old[other][0][key], own) for key, own in members[other].model.named_parameters())
    kept = members[other].optimizer.state_dict()["state"]
    assert kept and all(torch.equal(kept[i]["exp_avg"], old[other][1]["state"][i]["exp_avg"]) for i in kept)


def test_its_schedule_has_the_stages_that_are_left(swapped, tmp_path):
    """Linear, of five stages: the others go on with the third of five, the new one begins the first of three."""
    _, path, _, _ = swapped["y"]
    trainer = resume(path, tmp_path, [StopAfter(6)])
    rates = {key: log[key] for log in trainer.state.log_history for key in log if key.endswith("/learning_rate")}
    base = trainer.args.learning_rate
    assert rates["agent/x/learning_rate"] == pytest.approx(base * 3 / 5)
    assert rates["agent/y/learning_rate"] == pytest.approx(base)
    trainer = resume(path, tmp_path / "on")
    rates = [log["agent/y/learning_rate"] for log in trainer.state.log_history if "agent/y/learning_rate" in log]
    assert rates[-3:] == pytest.approx([base, base * 2 / 3, base / 3])


@pytest.mark.parametrize("name", ["x", "y"])
def test_a_run_resumes_after_a_swap_bit_for_bit(swapped, tmp_path, name):
    _, path, _, _ = swapped[name]
    whole = resume(path, tmp_path / "whole")
    resume(path, tmp_path / "stopped", [StopAfter(6)])
    again = resume(tmp_path / "stopped" / "checkpoint-6", tmp_path / "stopped")
    for a, b in zip(final_state(whole)[0], final_state(again)[0], strict=True):
        assert torch.equal(a, b)
    assert final_state(whole)[2] == final_state(again)[2]
    (event,) = json.loads((tmp_path / "stopped" / "checkpoint-10" / "team.json").read_text())["history"]
    assert (
        event["step"] == 4 and event["member"] == name and event["event"] == "replaced" and event["aligned"] is False
    )


def test_a_checkpoint_from_before_the_swap_is_refused_with_the_difference(swapped, tmp_path):
    folder, path, _, _ = swapped["y"]
    trainer = make_trainer(tmp_path, path, **FIELDS)
    with pytest.raises(ValueError, match="is from before a change of this team: 'y' was replaced after update 4"):
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    with pytest.raises(ValueError, match="'y' was replaced after update 4"):
        trainer.train(resume_from_checkpoint=str(folder.parent / "before" / "checkpoint-4"))


def test_a_team_put_together_by_hand_gets_the_weights_of_the_checkpoint(swapped, tmp_path):
    """Not those of the path that its script still names; another model is refused."""
    _, path, _, _ = swapped["y"]
    team = [make_team(1, 4)[0], make_newcomer("y", seed=77)]
    trainer = make_trainer(tmp_path, team, **FIELDS | {"num_stages": 2})
    trainer.train(resume_from_checkpoint=path)
    newcomer = make_newcomer("y").model
    assert all(torch.equal(newcomer.get_parameter(k), own) for k, own in trainer.members[1].model.named_parameters())
    assert [agent.history for agent in load_team(path)] == [speaker.agent.history for speaker in trainer.team.speakers]
    with pytest.raises(ValueError, match="cannot be loaded"):
        make_trainer(tmp_path / "old", make_team(2, 4), **FIELDS).train(resume_from_checkpoint=path)


def test_a_team_of_one_and_a_frozen_member(tmp_path):
    alone = stopped_run(tmp_path / "alone", team=make_team(1, 4))
    path = alone.replace_agent(make_newcomer("x"))
    after = resume(path, tmp_path / "alone")
    assert after.members[0].joined == 4 and after.state.global_step == 5
    x, y = make_team(2, 4)
    y.trainable = False
    frozen = stopped_run(tmp_path / "frozen", team=[x, y])
    path = frozen.replace_agent(make_newcomer("y", trainable=False))
    assert resume(path, tmp_path / "frozen").state.global_step == 5


def test_what_cannot_be_is_refused_and_leaves_the_checkpoint_whole(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path / "run", make_team(2, 4), callbacks=[StopAfter(3)], **FIELDS)
    with pytest.raises(ValueError, match=r"no updates yet. Pass the new member to the trainer"):
        trainer.replace_agent(make_newcomer("y"))
    trainer.train()
    with pytest.raises(ValueError, match="within a stage, after 1 of its 2 updates"):
        trainer.replace_agent(make_newcomer("y"))
    trainer = stopped_run(tmp_path / "run")
    with pytest.raises(ValueError, match="no member 'q'. Its members are x, y"):
        trainer.replace_agent(make_newcomer("q"))
    with pytest.raises(ValueError, match="'y' is trained in .* Set `trainable=True`"):
        trainer.replace_agent(make_newcomer("y", trainable=False))
    before = sorted(os.listdir(tmp_path / "run" / "checkpoint-4" / "y"))
    monkeypatch.setattr(
        "trl_teamtr.runs.member_swap.save_agents", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        trainer.replace_agent(make_newcomer("y"))
    assert sorted(os.listdir(tmp_path / "run" / "checkpoint-4" / "y")) == before
    again = make_trainer(tmp_path / "run", make_team(2, 4), **FIELDS)
    again.train(resume_from_checkpoint=True)  # the old team goes on
    assert again.state.global_step == 10 and not again.team.describe()["history"]
    only = stopped_run(tmp_path / "only", save_only_model=True)
    with pytest.raises(ValueError, match="`save_only_model=True` the others' optimizers would be lost"):
        only.replace_agent(Agent("y", make_model(4), processing_class=make_tokenizer(4)))


def test_the_certificate_and_the_occupancy_begin_anew(swapped, tmp_path):
    """Of the stage after the swap alone: what the old member had moved is not in them."""
    _, path, _, _ = swapped["x"]
    trainer = resume(path, tmp_path, [StopAfter(6)], log_occupancy=True, log_certificate=True, diagnostics_every=1)
    first, second = [log for log in trainer.state.log_history if log["step"] > 4 and "occupancy/tv" in log]
    assert first["occupancy/tv"] == 0.0 and first["occupancy/ess"] == 1.0
    measured = first["certificate/measured"] + second["certificate/measured"]
    assert second["certificate/stage_measured"] == pytest.approx(measured)
