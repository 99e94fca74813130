"""Plans of teams: what each phase holds, and that no weights are loaded."""

import pytest
import transformers
from planning.teams import lora, pair, plan_of, save_model
from tiny import make_config, make_model

from trl_teamtr import Agent, plan
from trl_teamtr.planning import Launch


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def loads_nothing(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", refuse)


def by_name(found):
    return {phase.name: phase for phase in found.phases}


def test_plan_loads_no_weights_and_fits(tmp_path, path, loads_nothing):
    found = plan_of(tmp_path, pair(path))
    assert found.fits and not found.advice and not found.seconds and "Everything fits." in str(found)
    assert [phase.name for phase in found.phases] == ["rollouts", "scoring", "update", "backtracking"]
    assert len(str(found).splitlines()) < 25


def test_full_agents_hold_their_weights_moments_and_a_snapshot(tmp_path, path):
    found = plan_of(tmp_path, pair(path), resampling="full")
    own, trained = found.members[0].skeleton.own_bytes, found.members[0].skeleton.trained_bytes
    moments = found.members[0].holdings.moments
    update, rollouts = by_name(found)["update"], by_name(found)["rollouts"]
    assert update.weights == 2 * own and update.snapshot == trained and rollouts.snapshot == 0
    assert update.moments == moments and update.host == 2 * moments  # the other agent's, and a copy of its own
    assert rollouts.moments == 0 and rollouts.host == 2 * moments
    assert by_name(found)["backtracking"].host == 2 * moments + trained


def test_the_snapshot_of_the_last_update_is_held_while_drafts_are_verified(tmp_path, path):
    found = by_name(plan_of(tmp_path, pair(path), resampling="speculative"))
    assert found["rollouts"].snapshot == found["update"].snapshot > 0
    assert found["scoring"].logits > 0


def test_adapters_share_their_base(tmp_path, path):
    team = pair(path, peft_config=lora())
    one, two = (plan_of(tmp_path, team[:number], resampling="full") for number in (1, 2))
    adapter = two.members[0].skeleton.own_bytes
    assert two.peak.weights == one.peak.weights + adapter
    apart = plan_of(tmp_path, team, resampling="full", share_base_model=False)
    assert apart.peak.weights == 2 * one.peak.weights


def test_frozen_agents_have_weights_alone_and_no_radius_needs_no_snapshot(tmp_path, path):
    team = [Agent("a", path), Agent("b", path, trainable=False)]
    found = plan_of(tmp_path, team, trust_region_radius=None)
    assert [phase.name for phase in found.phases] == ["rollouts", "scoring", "update"]
    update = by_name(found)["update"]
    assert update.agent == "a" and update.snapshot == update.host == 0
    assert update.weights == 2 * found.members[0].skeleton.own_bytes


def test_idle_weights_leave_the_device(tmp_path, path):
    found = plan_of(tmp_path, pair(path), offload_idle_agents=True, device_memory_gib=80)
    own = found.members[0].skeleton.own_bytes
    assert found.peak.weights == own and by_name(found)["rollouts"].host >= own


def test_zero_divides_what_it_says(tmp_path, path):
    one, four = (plan_of(tmp_path, pair(path), launch=Launch(number, 3), resampling="full") for number in (1, 4))
    for kind in ("moments", "snapshot"):
        assert getattr(by_name(four)["update"], kind) == pytest.approx(
            getattr(by_name(one)["update"], kind) / 4, abs=8
        )
    assert by_name(four)["rollouts"].weights < by_name(one)["rollouts"].weights
    host = plan_of(tmp_path, pair(path), launch=Launch(4, 3, True, True), resampling="full")
    assert by_name(host)["update"].moments == by_name(host)["update"].snapshot == 0
    assert by_name(host)["update"].host > by_name(four)["update"].host


def test_more_rollouts_need_more_cache_and_checkpointing_less_activations(tmp_path, path):
    few, many = (plan_of(tmp_path, pair(path), steps_per_generation=steps) for steps in (1, 3))
    assert by_name(many)["rollouts"].cache == 3 * by_name(few)["rollouts"].cache
    bounded = plan_of(tmp_path, pair(path), generation_cache_gib=by_name(few)["rollouts"].cache / 2**30)
    assert by_name(bounded)["rollouts"].cache <= by_name(few)["rollouts"].cache
    checkpointed = plan_of(tmp_path, pair(path), gradient_checkpointing=True, prompt_length=80)
    plain = plan_of(tmp_path, pair(path), prompt_length=80)
    assert by_name(checkpointed)["update"].activations < by_name(plain)["update"].activations


def test_the_exact_kl_is_measured_in_other_calls(tmp_path, path):
    k3, exact = (by_name(plan_of(tmp_path, pair(path), kl_estimator=kind)) for kind in ("k3", "exact"))
    assert exact["backtracking"].total != k3["backtracking"].total and exact["update"] == k3["update"]


def test_models_in_memory_can_be_planned(tmp_path):
    found = plan(make_model(), make_config(tmp_path), prompt_length=8)
    assert found.members[0].name == "agent" and found.fits


def test_it_is_not_known_whether_it_fits_a_device_of_unknown_size(tmp_path, path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = plan_of(tmp_path, pair(path), launch=Launch())
    assert found.fits is None and "pass the size of a device" in str(found)


def test_vllm_is_not_planned(tmp_path, path):
    args = make_config(tmp_path, use_vllm=True, vllm_mode="server")
    with pytest.raises(NotImplementedError, match="does not know vLLM servers. Plan with `use_vllm=False`"):
        plan(pair(path), args)
    with pytest.raises(
        NotImplementedError, match="does not know vLLM engines. Plan with .*`vllm_gpu_memory_utilization`"
    ):
        plan(pair(path), make_config(tmp_path, use_vllm=True))
