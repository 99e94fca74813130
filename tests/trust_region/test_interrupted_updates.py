"""An update is made whole or not at all, whatever ends it."""

import math

import pytest
import torch
from tiny import make_team, make_trainer
from transformers import AutoModelForCausalLM, TrainerCallback

from trl_teamtr.agent_trainer import AgentTrainer
from trl_teamtr.rollouts.turn_loop import TurnLoop
from trl_teamtr.trust_region.snapshot import Snapshot


FIELDS = {"num_stages": 3, "learning_rate": 0.1, "num_iterations": 4, "trust_region_radius": 0.01}


class Stop(TrainerCallback):
    """Raises at the given event of the second agent's second update."""

    def __init__(self, event, error):
        self.calls = 0

        def raise_(args, state, control, **kwargs):
            self.calls += state.global_step == 3
            if self.calls == 1:
                raise error

        setattr(self, event, raise_)


def in_callback(event, error):
    return lambda trainer, monkeypatch: trainer.add_callback(Stop(event, error))


def in_method(owner, name, error, call=1):
    """At the given call of a method in that update."""

    def apply(trainer, monkeypatch):
        method, calls = vars(owner)[name], []

        def watched(self, *args, **kwargs):
            if trainer.state.global_step == 3:
                calls.append(1)
                if len(calls) == call:
                    raise error
            return method(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    return apply


def nan_in_a_later_pass(trainer, monkeypatch):
    compute, calls = AgentTrainer._compute_loss, []

    def watched(self, model, inputs):
        loss = compute(self, model, inputs)
        calls.append(trainer.state.global_step)
        return loss * (math.nan if calls.count(3) == 2 else 1.0)

    monkeypatch.setattr(AgentTrainer, "_compute_loss", watched)
    trainer.args.trust_region_radius = trainer.members[1].radius = 10.0  # so that there is a second pass


def error_in_the_second_halving(trainer, monkeypatch):
    in_method(Snapshot, "halve", RuntimeError("mine"), call=2)(trainer, monkeypatch)
    trainer.members[1].radius = 1e-4  # so that there is one


def after_half_a_step(trainer, monkeypatch):
    """Ctrl-C while the optimizer is halfway through the weights."""
    step = torch.optim.AdamW.step

    def watched(self, *args, **kwargs):
        step(self, *args, **kwargs)
        if trainer.state.global_step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)


WAYS = {
    "Ctrl-C after a step": (in_callback("on_optimizer_step", KeyboardInterrupt()), KeyboardInterrupt),
    "error in a callback": (in_callback("on_pre_optimizer_step", RuntimeError("mine")), RuntimeError),
    "Ctrl-C in the optimizer": (after_half_a_step, KeyboardInterrupt),
    "Ctrl-C in a measurement": (in_method(AgentTrainer, "measure_kl", KeyboardInterrupt()), KeyboardInterrupt),
    "error in backtracking": (error_in_the_second_halving, RuntimeError),
    "NaN in a later pass": (nan_in_a_later_pass, FloatingPointError),
    "Ctrl-C in the rollouts": (in_method(TurnLoop, "run", KeyboardInterrupt()), KeyboardInterrupt),
}


def state_of(trainer):
    weights = [[param.detach().clone() for param in member.model.parameters()] for member in trainer.members]
    moments = [
        [value.clone() for values in member.optimizer.state.values() for value in values.values()]
        for member in trainer.members
    ]
    return weights, moments


@pytest.mark.parametrize("way, error", WAYS.values(), ids=list(WAYS))
def test_what_was_begun_is_reverted_and_saved_as_it_was(tmp_path, monkeypatch, way, error):
    trainer, states = make_trainer(tmp_path, make_team(2), **FIELDS), {}

    class Keep(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            states[state.global_step] = state_of(trainer)

    trainer.add_callback(Keep())
    way(trainer, monkeypatch)
    with pytest.raises(error):
        trainer.train()
    assert trainer.state.global_step == 3
    now, before = state_of(trainer), states[3]
    torch.testing.assert_close(now, before, atol=0, rtol=0)
    assert all(param.grad is None for member in trainer.members for param in member.model.parameters())
    trainer.save_model()
    for member, weights in zip(trainer.members, before[0], strict=True):
        saved = AutoModelForCausalLM.from_pretrained(tmp_path / member.name)
        assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), weights, strict=True))


def test_without_a_radius_the_pass_is_discarded_and_steps_that_were_made_stay(tmp_path, monkeypatch):
    fields = {**FIELDS, "trust_region_radius": None}
    whole = make_trainer(tmp_path / "whole", make_team(1), **{**fields, "num_stages": 1, "num_iterations": 1})
    whole.train()
    trainer, calls = make_trainer(tmp_path / "run", make_team(1), **fields), []
    accumulate = AgentTrainer._accumulate

    def interrupted(self, micro_batches):
        found = accumulate(self, micro_batches)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(AgentTrainer, "_accumulate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert all(param.grad is None for param in trainer.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(trainer.model.parameters(), whole.model.parameters(), strict=True))


def test_a_run_that_was_interrupted_can_be_resumed_in_the_same_process(tmp_path, monkeypatch):
    whole = make_trainer(tmp_path / "whole", make_team(2), **FIELDS, save_strategy="steps", save_steps=1)
    whole.train()
    trainer = make_trainer(tmp_path / "run", make_team(2), **FIELDS, save_strategy="steps", save_steps=1)
    trainer.add_callback(Stop("on_optimizer_step", KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.train(resume_from_checkpoint=True)
    for one, other in zip(whole.members, trainer.members, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


def test_processes_that_may_be_elsewhere_are_not_waited_for(tmp_path):
    """ZeRO publishes weights by a collective call, which a process that has failed must not begin alone."""
    trainer = make_trainer(tmp_path, make_team(1))
    trainer._prepare_members(2, trainer.get_train_dataloader(), None)
    published, engine = [], trainer.engine
    engine.publish = lambda: published.append(1)
    snapshot = Snapshot(engine)
    snapshot.restore(alone=True)
    assert engine.is_behind and not published
    engine.catch_up()
    assert not engine.is_behind
