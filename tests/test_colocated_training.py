"""Teams that train while they speak through vLLM engines in their process, which are here fake ones."""

import os

import pytest
import torch
from fake_engine import fake_engines
from tiny import BY_TURN, make_trainer, weights
from vllm_teams import in_process, lora_team, save_base

from trl_teamtr import Agent
from trl_teamtr.policy.generation import engine_fleet
from trl_teamtr.policy.generation.engine_fleet import EngineFleet


TRAINED = {"num_rounds": 2, "trust_region_radius": 1.0, "learning_rate": 0.02}


@pytest.fixture
def engines(monkeypatch):
    return fake_engines(monkeypatch)


@pytest.fixture
def base(tmp_path):
    return save_base(tmp_path / "base")


def mixed_team(tmp_path, base):
    """Two adapters on one engine, and an agent that trains all its weights on another."""
    other = tmp_path / "other"
    return [*lora_team(base), Agent("w", str(other) if other.exists() else save_base(other, seed=7))]


def all_weights(trainer):
    return {f"{member.name}/{name}": p for member in trainer.members for name, p in weights(member.model).items()}


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_two_adapters_and_a_frozen_agent_on_one_engine_and_a_whole_model_on_another(tmp_path, base, engines):
    team = [*mixed_team(tmp_path, base), Agent("f", base, trainable=False)]
    trainer = make_trainer(tmp_path / "run", team, num_stages=3, resampling="speculative", **TRAINED, **in_process())
    adapters, whole = engines.made
    trainer.train()
    logs = [log for log in trainer.state.log_history if "sampling/max" in log]
    assert trainer.state.global_step == 9 and len(logs) == 9 and max(log["sampling/max"] for log in logs) < 1e-4
    # Before the first turn, and after each update but the last: the run ends before the agent speaks again
    assert [len(adapters.versions(name)) for name in "xyf"] == [4, 4, 1] and whole.reloads == 3
    assert adapters.held == 3 and not adapters.adapters and not os.path.exists(tmp_path / "run" / ".vllm")
    assert trainer.args.use_vllm and trainer.args.vllm_mode == "colocate" and not trainer.use_vllm
    metrics = trainer.evaluate()
    assert metrics["eval_rewards/answer_reward/mean"] == metrics["eval_rewards/answer_reward/mean"]
    assert [len(adapters.versions(name)) for name in "xyf"] == [5, 5, 2] and whole.reloads == 4


def test_an_update_that_is_rejected_publishes_nothing(tmp_path, base, engines):
    fields = TRAINED | {"trust_region_radius": 1e-9, "max_backtracks": 0, "floor_every": 1000}
    more = {"num_stages": 2, "monitor_fraction": 0.0, "max_idle_updates": None}
    trainer = make_trainer(tmp_path / "run", mixed_team(tmp_path, base), **more, **fields, **in_process())
    for member in trainer.trained_members:
        member.floors.check = lambda *args: None  # a radius below them is an error
    trainer.train()
    assert all(log["agent/x/rejected"] == 1 for log in trainer.state.log_history if "agent/x/rejected" in log)
    adapters, whole = engines.made
    assert [len(adapters.versions(name)) for name in "xy"] == [1, 1] and whole.reloads == 1


@pytest.mark.parametrize("resampling", ["full", "speculative"])
def test_a_run_that_is_resumed_ends_with_the_same_weights(tmp_path, base, engines, resampling):
    fields = TRAINED | {"resampling": resampling, "num_stages": 2, "save_strategy": "steps", "save_steps": 3}
    whole = make_trainer(tmp_path / "whole", mixed_team(tmp_path, base), **fields, **in_process())
    whole.train()
    again = make_trainer(tmp_path / "again", mixed_team(tmp_path, base), **fields, **in_process())
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert_equal(all_weights(again), all_weights(whole))
    # Those of the checkpoint, and at most one more
    assert all(1 <= len(engines.made[2].versions(name)) <= 2 for name in "xy") and len(engines.made) == 4


def test_engines_sleep_in_updates(tmp_path, base, engines, monkeypatch):
    monkeypatch.setattr(engine_fleet, "check_engines", lambda *args: None)  # which refuses it on a CPU
    fields = TRAINED | {"num_stages": 2, "resampling": "full"}
    place = in_process(vllm_enable_sleep_mode=True)
    trainer, asleep = make_trainer(tmp_path / "run", mixed_team(tmp_path, base), **fields, **place), []
    for member in trainer.trained_members:

        def update(*args, original=member.update, **kwargs):
            asleep.append([engine.asleep for engine in engines.made])
            return original(*args, **kwargs)

        monkeypatch.setattr(member, "update", update)
    trainer.train()
    assert asleep == [[True, True]] * 6
    awake = make_trainer(tmp_path / "awake", mixed_team(tmp_path, base), **fields, **in_process())
    awake.train()
    assert_equal(all_weights(trainer), all_weights(awake))
    assert [engine.naps for engine in engines.made] == [7, 7, 0, 0]  # once when they were made, and in each update


def test_the_best_team_is_the_one_that_speaks_afterwards(tmp_path, base, engines):
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_reward", "eval_strategy": "steps"}
    best |= {"eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "per_device_eval_batch_size": 8}
    trainer = make_trainer(tmp_path / "run", lora_team(base), num_stages=2, **TRAINED, **best, **in_process())
    trainer.train()
    loaded = len(engines.made[0].versions("x"))
    trainer.team.collect([{"prompt": "a"}])  # the check after each publication compares
    assert len(engines.made[0].versions("x")) == loaded + 1


def test_agents_of_one_turn_share_a_batch_where_a_router_mixes_them(tmp_path, base, engines, monkeypatch):
    asked, generate = [], EngineFleet.generate

    def watch(self, requests):
        asked.append({request.agent for request in requests})
        return generate(self, requests)

    monkeypatch.setattr(EngineFleet, "generate", watch)
    fields = {"router_kind": "random", "max_turns": 3} | TRAINED | in_process()
    trainer = make_trainer(tmp_path / "run", lora_team(base, "xyz"), **fields)
    trainer.team.collect([{"prompt": prompt} for prompt in ["a", "u", "aa", "ua"] * 4])
    assert asked == [{"x", "y", "z"}] * 3
    (engine,) = engines.made
    assert len(set(engine.batches[-1])) == 3 and len(engine.batches[-1]) == 16


def test_a_team_of_one_is_trained(tmp_path, base, engines):
    trainer = make_trainer(tmp_path / "run", base, num_stages=2, **TRAINED, **in_process())
    trainer.train()
    assert engines.made[0].reloads == 2
    assert max(log["sampling/max"] for log in trainer.state.log_history if "sampling/max" in log) < 1e-4


def test_the_correction_weighs_what_an_engine_samples_otherwise(tmp_path, base, engines, monkeypatch):
    monkeypatch.setattr(engines, "flatter", 0.8)
    corrected = {"vllm_importance_sampling_correction": True, "vllm_importance_sampling_mode": "token_truncate"}
    place = in_process(vllm_max_logp_difference=None, **corrected)
    fields = TRAINED | {"num_stages": 2, "num_iterations": 2, "trust_region_radius": 0.05, "monitor_fraction": 0.25}
    trainer = make_trainer(tmp_path / "run", lora_team(base), **fields, **place)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "sampling/kl" in log]
    assert len(logs) == 4
    assert all(log["sampling/importance_sampling_ratio/max"] > 1.05 and log["sampling/ess"] < 0.9999 for log in logs)


@pytest.mark.parametrize("credit", ["suffix", "message"])
def test_branches_speak_through_engines_and_are_scored_as_sampled(tmp_path, base, engines, credit):
    fields = BY_TURN | {"credit": credit}
    corrected = {"vllm_importance_sampling_correction": True, "resampling": "speculative"}
    trainer = make_trainer(
        tmp_path / "run", lora_team(base), num_stages=2, **fields, **TRAINED, **in_process(**corrected)
    )
    trainer.train()
    logs = [log for log in trainer.state.log_history if "sampling/max" in log]
    assert len(logs) == 4 and max(log["sampling/max"] for log in logs) < 1e-4
    assert all(log["rollout/reused_fraction"] > 0 for log in logs[1::2])
