"""The arithmetic of a stage's time, at speeds that are given."""

import pytest
from planning.teams import pair, plan_of, save_model
from tiny import BY_TURN

from trl_teamtr.planning import stage_time
from trl_teamtr.planning.calibration import Speed


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def speed(monkeypatch):
    found = Speed(forward=1.0, training=3.0, step=10.0, row=1.0)
    monkeypatch.setattr(stage_time, "calibrate", lambda *args: found)
    return found


def seconds(tmp_path, path, **fields):
    return plan_of(tmp_path, pair(path), calibrate=True, num_generations=4, **fields).seconds


def test_parts_of_a_stage(tmp_path, path, speed):
    # 8 rows; contexts of 8 and 18 tokens, messages of 2
    found = seconds(tmp_path, path, resampling="full", num_iterations=3)
    once = 8 * (8 + 18) * 1.0 + 2 * 2 * (10.0 + 7 * 1.0)
    assert found["rollouts"] == pytest.approx(2 * once)
    assert found["scoring"] == pytest.approx(8 * (10 + 20))
    assert found["updates"] == pytest.approx(3 * 3.0 * 8 * (10 + 20))
    assert seconds(tmp_path, path, resampling="stale")["rollouts"] == pytest.approx(once)
    assert seconds(tmp_path, path, resampling="suffix", update_order="reversed")["rollouts"] <= 2 * once


def test_several_steps_per_pass_are_measured_after_each(tmp_path, path, speed):
    fields = {"steps_per_generation": 2, "gradient_accumulation_steps": 1, "num_iterations": 2, "resampling": "full"}
    assert seconds(tmp_path, path, **fields)["scoring"] == pytest.approx((1 + 3 + 1) * 16 * (10 + 20))


def test_branches_are_generated_from_the_first_turn_of_the_updated_agent(tmp_path, path, speed):
    found = seconds(tmp_path, path, resampling="full", **BY_TURN)["rollouts"]
    trunks = 2 * (8 + 18) + 2 * 2 * (10.0 + 1)  # 2 rows, for each update anew
    first = 6 * (8 + 18) + 2 * 2 * (10.0 + 5)
    second = 6 * 18 + 2 * (10.0 + 5)
    assert found == pytest.approx(2 * trunks + first + second)


def test_drafts_cost_two_passes(tmp_path, path, speed):
    found = seconds(tmp_path, path, resampling="speculative")["rollouts"]
    once = 8 * (8 + 18) + 2 * 2 * (10.0 + 7)
    verified = 2 * 8 * (10 + 20) + 0.1 * 8 * (8 + 18) + 2 * 2 * 10.0
    assert found == pytest.approx(once + verified)


def test_plan_without_a_time_says_why(tmp_path, path, monkeypatch):
    monkeypatch.setattr(stage_time, "calibrate", lambda *args: None)
    found = plan_of(tmp_path, pair(path), calibrate=True)
    assert found.seconds == {} and "cpu is too slow to tell" in str(found)
