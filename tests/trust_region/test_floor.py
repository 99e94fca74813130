"""The floor of the KL: measured between policies that are equal but for rounding, and compared with the radius."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from tiny import SimpleEngine, make_model, make_team, make_tokenizer, make_trainer
from torch import nn

from trl_teamtr import Agent
from trl_teamtr.trust_region import floor
from trl_teamtr.trust_region.floor import Floors, nudge


@pytest.fixture
def mixed_precision():
    """The state of accelerate is one for the process."""
    AcceleratorState._reset_state()
    yield {"bf16": True}
    AcceleratorState._reset_state()


def logged(trainer, key):
    return [log[key] for log in trainer.state.log_history if key in log]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_nudge_is_small_and_the_same_each_time(dtype):
    torch.manual_seed(0)
    weights = [torch.randn(100, 100).to(dtype), torch.zeros(5000, dtype=dtype)]
    nudged = nudge(weights)
    assert all(torch.equal(a, b) for a, b in zip(nudged, nudge(weights), strict=True))
    moved = [(a != b).float().mean().item() for a, b in zip(nudged, weights, strict=True)]
    if dtype == torch.float32:
        assert min(moved) > 0.9 and max((a - b).abs().max() for a, b in zip(nudged, weights, strict=True)) < 1e-4
        assert nudge([torch.tensor([[1.0, 2.0], [0.0, 0.0]])])[0][1].tolist() == [
            0.0,
            0.0,
        ]  # as the embedding of padding
    else:
        assert all(0 < share < 3e-3 for share in moved)
        assert (nudged[0] - weights[0]).abs().max() <= 4 * torch.finfo(dtype).eps


def test_the_radius_is_compared_with_the_floor(monkeypatch):
    policy = SimpleNamespace(scoring_precision="bfloat16", accelerator=SimpleNamespace(device=torch.device("cpu")))
    speaker = SimpleNamespace(name="solver", policy=policy)
    Floors(scoring=0.0009).check(0.01, speaker)
    with pytest.warns(UserWarning, match="'solver' is 0.01 .* a KL of 0.002 is measured in bfloat16.*'float32'"):
        Floors(scoring=0.002).check(0.01, speaker)
    with pytest.raises(
        ValueError, match="reverted for nothing. Use `scoring_precision='float32'`, or a `trust_region"
    ):
        Floors(scoring=0.004).check(0.01, speaker)
    speaker.policy.scoring_precision = "float32"
    with pytest.raises(ValueError, match="Use a `trust_region_radius` of at least 0.04; shorter messages"):
        Floors(scoring=0.004).check(0.01, speaker)
    monkeypatch.setattr(floor, "computes_in_tf32", lambda device: True)
    with pytest.warns(UserWarning, match="products in TF32, so that .* Use `tf32=False`, or a `trust_region_radius`"):
        Floors(scoring=0.002).check(0.01, speaker)


@pytest.mark.parametrize("estimator", ["k3", "exact"])
def test_in_float32_the_floor_is_nothing_and_the_weights_are_left_alone(tmp_path, estimator):
    plain = make_trainer(tmp_path / "a", make_team(2), num_stages=3, kl_estimator=estimator, floor_every=100)
    often = make_trainer(tmp_path / "b", make_team(2), num_stages=3, kl_estimator=estimator, floor_every=1)
    for trainer in (plain, often):
        torch.manual_seed(0)
        trainer.train()
        assert len(logged(trainer, "agent/x/kl_floor")) == 3 and max(logged(trainer, "agent/x/kl_floor")) < 1e-6
    for a, b in zip(plain.members, often.members, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True))


def test_a_radius_below_the_rounding_of_its_precision_ends_the_run_before_the_first_update(tmp_path, mixed_precision):
    trainer = make_trainer(
        tmp_path, make_team(1), scoring_precision="bfloat16", trust_region_radius=1e-9, **mixed_precision
    )
    start = [param.detach().clone() for param in trainer.model.parameters()]
    with pytest.raises(ValueError, match="but for rounding a KL of .* is measured in bfloat16.*'float32'"):
        trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(trainer.model.parameters(), start, strict=True))


def long_messages(**fields):
    return {
        "max_completion_length": 24,
        "num_stages": 8,
        "learning_rate": 1e-5,
        "kl_coef": 0.0,
        "resampling": "full",
        **fields,
    }


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_in_mixed_precision_small_updates_are_accepted_as_in_float32(tmp_path, mixed_precision, weights):
    """Scored in the precision of training, the KL of the first is that of its rounding."""
    rate = {"learning_rate": 1e-3} if weights == "bfloat16" else {}  # smaller steps do not change such weights
    fields = long_messages(**rate, trust_region_radius=1e-3, **mixed_precision)
    kls = {}
    for precision in ("float32", "bfloat16"):
        agents = [Agent("x", make_model(seed=4).to(getattr(torch, weights)), processing_class=make_tokenizer())]
        idle = {"max_idle_updates": 1 if precision == "float32" else None}
        trainer = make_trainer(tmp_path / precision, agents, scoring_precision=precision, **idle, **fields)
        torch.manual_seed(0)
        trainer.train()
        kls[precision] = logged(trainer, "agent/x/kl")
        if precision == "float32":
            assert max(logged(trainer, "agent/x/idle")) == 0 and max(logged(trainer, "agent/x/rejected")) == 0
            assert max(logged(trainer, "agent/x/kl_floor")) < 1e-5
            assert torch.backends.cuda.matmul.fp32_precision != "tf32"  # unless it is asked for
    assert 0 < max(kls["float32"]) <= 1e-3
    assert abs(kls["bfloat16"][0] - kls["float32"][0]) > 0.2 * kls["float32"][0]


def test_floors_are_kept_over_a_resume(tmp_path, mixed_precision):
    fields = long_messages(num_stages=2, save_strategy="steps", save_steps=1, **mixed_precision)
    whole = make_trainer(tmp_path, make_team(1), **fields)
    whole.train()
    resumed = make_trainer(tmp_path, make_team(1), **fields)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert resumed.floors == whole.floors and whole.floors.training > 0
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))


def test_what_is_held_is_not_what_is_kept():
    model = nn.Linear(3, 2)
    engine = SimpleEngine(model, torch.optim.SGD(model.parameters(), lr=0.1))
    own = [weight.clone() for weight in engine.weights]
    with engine.holding(nudge(engine.weights)):
        assert not all(torch.equal(a, b) for a, b in zip(engine.weights, own, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(engine.weights, own, strict=True))
