import pytest
import torch
from peft import LoraConfig
from tiny import make_model, make_team, make_tokenizer, make_trainer

from trl_teamtr import Agent
from trl_teamtr.policy.residency import Offloaded


class Recorder:
    """There is one kind of memory on a machine without a GPU: this keeps account of what would be where."""

    def __init__(self, monkeypatch):
        self.away = set()
        monkeypatch.setattr(Offloaded, "move_out", lambda offloaded, tensors: self.move_out(offloaded, tensors))
        monkeypatch.setattr(Offloaded, "move_back", lambda offloaded: self.move_back(offloaded))

    def move_out(self, offloaded, tensors):
        assert not self.away & {id(t) for t in tensors}, "moved out twice"
        offloaded._homes += [(tensor, tensor.device) for tensor in tensors]
        self.away |= {id(t) for t in tensors}

    def move_back(self, offloaded):
        self.away -= {id(t) for t, _ in offloaded._homes}
        offloaded._homes.clear()

    def has_moments(self, member):
        values = [v for state in member.optimizer.state.values() for v in state.values()]
        return bool(values) and not any(id(v) in self.away for v in values)

    def has_weights(self, member):
        models = [model for model in (member.model, member.ref_model) if model is not None]
        return not any(id(p) in self.away for model in models for p in model.parameters())


def watch(monkeypatch, trainer, recorder):
    """Calls of `speak` and `update`, with the agents whose moments and weights are on the device then."""
    calls = []
    for member in trainer.members:
        for owner, name in ((member.speaker, "speak"), (member, "_accumulate")):
            method = getattr(owner, name)

            def call(*args, _method=method, _member=member, _name=name):
                result = _method(*args)
                there = [m.name for m in trainer.trained_members if recorder.has_moments(m)]
                calls.append(
                    (_name, _member.name, there, [m.name for m in trainer.members if recorder.has_weights(m)])
                )
                return result

            monkeypatch.setattr(owner, name, call)
    return calls


def test_only_the_agent_in_training_has_its_moments_on_the_device(tmp_path, monkeypatch):
    recorder = Recorder(monkeypatch)
    trainer = make_trainer(tmp_path, make_team(3), num_stages=2, trust_region_radius=None)
    calls = watch(monkeypatch, trainer, recorder)
    trainer.train()
    trained = [(name, moments) for kind, name, moments, _ in calls if kind == "_accumulate"]
    assert all(set(moments) <= {name} for name, moments in trained)
    assert [name for name, moments in trained if moments]  # from the second pass of an agent on there are some
    assert {len(weights) for *_, weights in calls} == {3}


def test_idle_agents_have_no_weights_on_the_device_if_asked(tmp_path, monkeypatch):
    recorder, team = Recorder(monkeypatch), make_team(3)
    for agent in team:  # reference models are loaded from a path
        agent.model.save_pretrained(tmp_path / agent.name)
        agent.model = str(tmp_path / agent.name)
    trainer = make_trainer(
        tmp_path, team, num_stages=2, num_rounds=2, beta=0.1, resampling="full", offload_idle_agents=True
    )
    assert all(member.ref_model is not None for member in trainer.members)
    calls = watch(monkeypatch, trainer, recorder)
    trainer.train()
    assert {name for _, name, _, _ in calls} == {"x", "y", "z"}
    assert all(weights == [name] for _, name, _, weights in calls)


def test_offloading_changes_no_weight(tmp_path):
    weights = []
    for offload in (False, True):
        torch.manual_seed(0)
        trainer = make_trainer(tmp_path / str(offload), make_team(2), num_stages=2, offload_idle_agents=offload)
        trainer.train()
        trainer.train()  # once more, with new optimizers
        weights.append([p for m in trainer.members for p in m.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_weights_that_agents_share_stay(tmp_path):
    base, tokenizer = make_model(), make_tokenizer()
    lora = {"peft_config": LoraConfig(task_type="CAUSAL_LM", r=2), "processing_class": tokenizer}
    team = [Agent("x", base, **lora), Agent("y", base, **lora)]
    trainer = make_trainer(tmp_path, team, offload_idle_agents=True)
    own = trainer.residency._own
    for member in trainer.members:
        adapter = {id(p) for n, p in member.model.named_parameters() if "lora" in n}
        assert {id(t) for t in own[member.name]} == adapter


def test_tensors_return_to_where_they_were():
    tensor, offloaded = torch.ones(2), Offloaded()
    storage = tensor.data_ptr()
    offloaded.move_out([tensor])
    offloaded.move_back()
    assert tensor.data_ptr() == storage and offloaded._homes == []


def test_offloading_is_refused_with_deepspeed(tmp_path, monkeypatch):
    pytest.importorskip("deepspeed")
    from trl_teamtr import TeamTRConfig

    with pytest.raises(ValueError, match="zero3_offload"):
        TeamTRConfig(
            str(tmp_path),
            use_cpu=True,
            bf16=False,
            offload_idle_agents=True,
            deepspeed={"zero_optimization": {"stage": 2}},
        )
