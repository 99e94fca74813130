import pytest
import torch
from peft import LoraConfig
from tiny import make_model, make_team, make_tokenizer, make_trainer

from trl_teamtr import Agent
from trl_teamtr.agent_trainer import AgentTrainer
from trl_teamtr.policy.residency import Offloaded
from trl_teamtr.trust_region import snapshot


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
        return {}

    def has_moments(self, member):
        values = [v for state in member.optimizer.state.values() for v in state.values()]
        return bool(values) and not any(id(v) in self.away for v in values)

    def has_weights(self, member):
        models = [model for model in (member.model, member.ref_model) if model is not None]
        return not any(id(p) in self.away for model in models for p in model.parameters())


def watch(monkeypatch, trainer, recorder):
    """Calls of `generate` and `update`, with the agents whose moments and weights are on the device then."""
    calls = []
    for member in trainer.members:
        for owner, name in ((member.speaker.backend, "generate"), (member, "_accumulate")):
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
    assert not any(moments for kind, _, moments, _ in calls if kind == "generate")  # none during rollouts


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


class Device:
    """Stands for a device with its own memory: what is moved there and back is another tensor each time."""

    def __init__(self, monkeypatch):
        self.copies = []

        def move_out(offloaded, tensors):
            offloaded._homes += [(tensor, tensor.device) for tensor in tensors]
            for tensor, _ in offloaded._homes:
                tensor.data = tensor.data.clone()

        def move_back(offloaded):
            left = {id(tensor): tensor.data for tensor, _ in offloaded._homes}
            for tensor, _ in offloaded._homes:
                tensor.data = tensor.data.clone()
            offloaded._homes.clear()
            return left

        def copy(value):
            self.copies.append(value)
            return original(value)

        original = snapshot._copy
        monkeypatch.setattr(Offloaded, "move_out", move_out)
        monkeypatch.setattr(Offloaded, "move_back", move_back)
        monkeypatch.setattr(snapshot, "_copy", copy)


@pytest.mark.parametrize("resampling", ["full", "speculative"])
@pytest.mark.parametrize("agents, radius", [(2, 10.0), (2, 1e-5), (2, None), (1, 10.0)])
def test_what_moments_leave_on_the_host_is_the_copy_that_undoes_an_update(
    tmp_path, monkeypatch, resampling, agents, radius
):
    """Only a single agent, whose moments never leave the device, has another one; without a radius none is made."""
    device, found = Device(monkeypatch), []
    fields = {"num_stages": 2, "trust_region_radius": radius, "max_backtracks": 0, "resampling": resampling}
    trainer = make_trainer(tmp_path, make_team(agents), **fields)
    update = AgentTrainer.update

    def watched(self, batch, before=None, *rest):
        state = [value.clone() for values in self.optimizer.state.values() for value in values.values()]
        report = update(self, batch, before, *rest)
        now = [value for values in self.optimizer.state.values() for value in values.values()]
        found.append((report.rejected, len(state), len(now)))
        if report.rejected:
            assert all(torch.equal(a, b) for a, b in zip(now, state, strict=True))
        assert before is None or before._optimizer_state is None  # nothing is left of it after the update
        return report

    monkeypatch.setattr(AgentTrainer, "update", watched)
    trainer.train()
    assert [rejected for rejected, *_ in found] == [radius == 1e-5] * 2 * agents
    later = [count for _, count, _ in found[agents:]]
    assert all(later) == (radius != 1e-5)  # moments at the start of the second stage
    assert len(device.copies) == (sum(later) if agents == 1 else 0)


def test_a_rejected_update_restores_moments_from_the_host(tmp_path, monkeypatch):
    Device(monkeypatch)
    fields = {"num_stages": 3, "trust_region_radius": 10.0, "max_backtracks": 0}
    trainer, states = make_trainer(tmp_path, make_team(2), **fields), []
    update = AgentTrainer.update

    def watched(self, batch, *rest):
        if trainer.state.global_step >= 2:
            self.radius = 1e-5
        states.append([value.clone() for values in self.optimizer.state.values() for value in values.values()])
        report = update(self, batch, *rest)
        now = [value for values in self.optimizer.state.values() for value in values.values()]
        assert report.rejected == (trainer.state.global_step >= 2)
        if report.rejected:
            assert now and all(torch.equal(a, b) for a, b in zip(now, states[-1], strict=True))
        return report

    monkeypatch.setattr(AgentTrainer, "update", watched)
    trainer.train()
    assert len(states) == 6 and all(torch.equal(a, b) for a, b in zip(states[2], states[4], strict=True))


def test_what_is_left_on_the_host_is_forgotten_with_the_first_step(tmp_path):
    """A snapshot that is made after it copies the moments as they are."""
    trainer = make_trainer(tmp_path, make_team(1))
    trainer._prepare_members(2, trainer.get_train_dataloader(), None)
    engine = trainer.engine
    for weight in trainer.model.parameters():
        weight.grad = torch.ones_like(weight)
    engine.step()
    moments = [v for values in engine.optimizer.state.values() for v in values.values()]
    engine.moments_on_host = {id(value): torch.full_like(value, 7.0) for value in moments}
    assert all((v == 7).all() for state in copies_of(engine) for v in state.values())
    for weight in trainer.model.parameters():
        weight.grad = torch.ones_like(weight)
    engine.step()
    assert not any((v == 7).all() for state in copies_of(engine) for v in state.values())


def copies_of(engine):
    return snapshot.copy_optimizer_state(engine)[0].values()
