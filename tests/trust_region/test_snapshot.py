import copy

import pytest
import torch
from tiny import SimpleEngine
from torch import nn

from trl_teamtr.trust_region.snapshot import Snapshot


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
