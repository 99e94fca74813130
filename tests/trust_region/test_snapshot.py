import copy

import pytest
import torch
from tiny import SimpleEngine
from torch import nn

from trl_teamtr.trust_region.snapshot import Snapshot
from trl_teamtr.trust_region.update import UpdateReport, backtrack


@pytest.fixture
def engine():
    model = nn.Linear(3, 2)
    return SimpleEngine(model, torch.optim.AdamW(model.parameters(), lr=0.1))


def step(engine):
    engine.model(torch.ones(1, 3)).square().sum().backward()
    engine.optimizer.step()
    engine.optimizer.zero_grad()


def copy_of(engine):
    return copy.deepcopy((engine.model.state_dict(), engine.optimizer.state_dict()))


def assert_same(engine, expected):
    for now, then in zip(copy_of(engine), expected, strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=0)


@pytest.mark.parametrize("steps_before", [0, 2], ids=["no-moments-yet", "moments"])
def test_restored_run_goes_on_as_if_nothing_had_been(engine, steps_before):
    for _ in range(steps_before):
        step(engine)
    before, snapshot = copy_of(engine), Snapshot(engine)
    step(engine)
    once = copy_of(engine)
    step(engine)
    snapshot.restore()
    assert_same(engine, before)
    step(engine)
    assert_same(engine, once)


def test_restore_also_puts_back_what_a_step_writes_into_the_groups(engine):
    engine.optimizer.param_groups[0]["k"] = torch.tensor(1.0)  # as schedule-free optimizers do
    snapshot = Snapshot(engine)
    engine.optimizer.param_groups[0]["k"] += 1
    snapshot.restore()
    assert engine.optimizer.param_groups[0]["k"] == 1


def test_model_is_the_current_policy_within_the_context_only(engine):
    before = [w.clone() for w in engine.weights]
    snapshot = Snapshot(engine, with_optimizer=False)
    step(engine)
    after = copy_of(engine)
    with snapshot.current_policy():
        assert all(torch.equal(a, b) for a, b in zip(engine.weights, before, strict=True))
    assert_same(engine, after)
    with pytest.raises(KeyboardInterrupt), snapshot.current_policy():
        raise KeyboardInterrupt
    assert_same(engine, after)


def test_without_the_optimizer_its_moments_stay(engine):
    snapshot = Snapshot(engine, with_optimizer=False)
    step(engine)
    moments = copy_of(engine)[1]
    snapshot.restore()
    torch.testing.assert_close(engine.optimizer.state_dict(), moments)


def test_one_copy_of_the_current_policy_is_all_that_is_made(engine):
    snapshot = Snapshot(engine, with_optimizer=False)
    step(engine)
    own, then = [[w.data_ptr() for w in weights] for weights in (engine.weights, snapshot.weights)]
    with snapshot.current_policy():
        assert [w.data_ptr() for w in engine.weights] == then
    assert [w.data_ptr() for w in engine.weights] == own


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_step_is_halved_and_not_the_distance_to_what_was_rounded(dtype):
    """Of 64 units in the last place: after six halvings one is left, after seven none, and never one too many."""
    model = nn.Linear(4, 4, bias=False).to(dtype)
    with torch.no_grad():
        model.weight.fill_(1.0)
    engine = SimpleEngine(model, torch.optim.SGD(model.parameters(), lr=1.0))
    snapshot = Snapshot(engine)
    unit = torch.finfo(dtype).eps
    proposed = 1.0 + unit * torch.arange(1, 17, dtype=dtype).view(4, 4) * 4
    with torch.no_grad():
        model.weight.copy_(proposed)
    for k in range(1, 9):
        snapshot.halve()
        expected = (1.0 + (proposed.double() - 1.0) / 2**k).to(dtype)
        assert torch.equal(model.weight, expected)
    assert torch.equal(model.weight, torch.ones_like(model.weight))


def test_backtracking_in_bfloat16_ends_within_the_radius():
    torch.manual_seed(0)
    model = nn.Linear(32, 32, bias=False).to(torch.bfloat16)
    before = model.weight.detach().clone()
    engine = SimpleEngine(model, torch.optim.SGD(model.parameters(), lr=1.0))
    snapshot = Snapshot(engine)
    with torch.no_grad():
        model.weight += 0.01 * torch.randn_like(model.weight)
    report = UpdateReport(kl_proposed=1.0)

    def kl():
        return (model.weight - before).float().square().sum().item()

    backtrack(snapshot, kl, radius=1e-4, max_backtracks=10, report=report)
    assert not report.rejected and 0 < report.kl <= 1e-4


def test_one_layer_is_that_of_the_current_policy_within_the_context_only():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    engine = SimpleEngine(model, torch.optim.SGD(model.parameters(), lr=0.1))
    before, snapshot = copy.deepcopy(model.state_dict()), Snapshot(engine, with_optimizer=False)
    step(engine)
    after = copy.deepcopy(model.state_dict())
    with snapshot.current_layer(model[1]):
        assert all(
            torch.equal(value, (before if key[0] == "1" else after)[key]) for key, value in model.state_dict().items()
        )
    assert_same(engine, (after, engine.optimizer.state_dict()))
    assert not torch.equal(before["0.weight"], after["0.weight"])
