import copy

import pytest
import torch
from tiny import SimpleEngine
from torch import nn

from trl_teamtr.trust_region.snapshot import Snapshot
from trl_teamtr.trust_region.update import KLController, UpdateReport, backtrack


def test_controller_follows_the_proportional_rule():
    controller = KLController(1.0, radius=0.1)
    controller.step(0.11)
    assert controller.coef == pytest.approx(1.1)
    controller.step(10.0)  # error clipped to 0.2
    assert controller.coef == pytest.approx(1.1 * 1.2)
    controller.step(0.0)
    assert controller.coef == pytest.approx(1.1 * 1.2 * 0.8)


@pytest.mark.parametrize("arguments", [{"adaptive": False, "radius": 0.1}, {"radius": None}])
def test_controller_stays_without_a_target(arguments):
    controller = KLController(0.3, **arguments)
    controller.step(5.0)
    assert controller.coef == 0.3


def test_controller_does_not_run_away():
    controller = KLController(0.1, radius=0.1, gain=4)
    for _ in range(1000):
        controller.step(0.0)
    assert controller.coef == pytest.approx(0.1 / KLController.MAX_FACTOR)
    for _ in range(1000):
        controller.step(1.0)
    assert controller.coef == pytest.approx(0.1 * KLController.MAX_FACTOR)


@pytest.fixture
def moved():
    """A model and its optimizer before a step, a snapshot of them, and the weights after the step."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    snapshot = Snapshot(SimpleEngine(model, optimizer))
    optimizer.step()
    return model, optimizer, snapshot, before


def distance(model, before):
    return (model.weight - before[0]["weight"]).abs().max().item()


def test_backtracking_halves_until_the_kl_is_inside_and_keeps_the_moments(moved):
    model, optimizer, snapshot, before = moved
    full, moments = distance(model, before), copy.deepcopy(optimizer.state_dict())
    report = UpdateReport(kl_proposed=full**2)
    backtrack(snapshot, lambda: distance(model, before) ** 2, radius=full**2 / 10, max_backtracks=10, report=report)
    assert report.backtracks == 2 and not report.rejected
    assert report.kl == pytest.approx(full**2 / 16, rel=1e-4)
    assert distance(model, before) == pytest.approx(full / 4, rel=1e-4)
    torch.testing.assert_close(optimizer.state_dict(), moments)


def test_update_that_never_comes_inside_is_undone_with_its_moments(moved):
    model, optimizer, snapshot, before = moved
    report = UpdateReport(kl_proposed=1.0)
    backtrack(snapshot, lambda: 1.0, radius=0.1, max_backtracks=3, report=report)
    assert report.rejected and report.backtracks == 3 and report.kl == 0
    for now, then in zip((model.state_dict(), optimizer.state_dict()), before, strict=True):
        torch.testing.assert_close(now, then, atol=0, rtol=0)


def test_update_with_a_nan_kl_is_undone(moved):
    model, _, snapshot, before = moved
    report = UpdateReport(kl_proposed=float("nan"))
    backtrack(snapshot, lambda: float("nan"), radius=0.1, max_backtracks=3, report=report)
    assert report.rejected and distance(model, before) == 0


def test_update_inside_the_radius_is_left_alone(moved):
    model, _, snapshot, before = moved
    full = distance(model, before)
    report = UpdateReport(kl_proposed=0.1)
    backtrack(snapshot, lambda: pytest.fail("measured again"), radius=0.1, max_backtracks=3, report=report)
    assert report.kl == 0.1 and report.backtracks == 0 and distance(model, before) == full
