"""Teams that train while they speak through vLLM servers, which are here fake ones."""

import os

import pytest
import torch
from fake_vllm import serving
from tiny import make_trainer, weights
from vllm_teams import lora_team, on_server, save_base

from trl_teamtr import Agent
from trl_teamtr.agent_trainer import AgentTrainer
from trl_teamtr.policy.generation.client import ServerClient
from trl_teamtr.policy.generation.fleet import Fleet
from trl_teamtr.policy.scoring import message_mask


TRAINED = {"num_rounds": 2, "trust_region_radius": 1.0, "learning_rate": 0.02}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(ServerClient, "poll_interval", 0.05)


@pytest.fixture
def base(tmp_path):
    return save_base(tmp_path / "base")


def all_weights(trainer):
    return {f"{member.name}/{name}": p for member in trainer.members for name, p in weights(member.model).items()}


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_three_adapters_on_one_server_and_a_whole_model_on_another(tmp_path, base):
    other = save_base(tmp_path / "other", seed=7)
    with serving(base) as server, serving(other) as own:
        team = [*lora_team(base, "xyz"), Agent("w", other, vllm_server_base_url=own.url)]
        trainer = make_trainer(tmp_path / "run", team, num_stages=2, **TRAINED, **on_server(server.url))
        trainer.train()
        logs = [log for log in trainer.state.log_history if "sampling/max" in log]
        assert len(logs) == 8 and max(log["sampling/max"] for log in logs) < 1e-4
        # Before the first turn, and after each update but the last: the run ends before the agent speaks again
        assert [len(server.versions(name)) for name in "xyz"] == [3, 3, 3]
        assert len(own.sent("/collective_rpc")) == len(own.sent("/reset_prefix_cache")) == 2
        assert server.held == 4 and server.missing == [] and not server.adapters
        assert trainer.args.use_vllm and not os.path.exists(tmp_path / "run" / ".vllm")
        metrics = trainer.evaluate()
        assert metrics["eval_rewards/answer_reward/mean"] == metrics["eval_rewards/answer_reward/mean"]
        assert [len(server.versions(name)) for name in "xyz"] == [4, 4, 4]


def test_an_update_that_is_rejected_publishes_nothing(tmp_path, base):
    with serving(base) as server:
        fields = TRAINED | {"trust_region_radius": 1e-9, "max_backtracks": 0, "floor_every": 1000}
        trainer = make_trainer(
            tmp_path / "run",
            [*lora_team(base), Agent("f", base, trainable=False)],
            num_stages=2,
            monitor_fraction=0.0,
            max_idle_updates=None,
            **fields,
            **on_server(server.url),
        )
        for member in trainer.trained_members:
            member.floors.check = lambda *args: None  # a radius below them is an error
        trainer.train()
        assert all(log["agent/x/rejected"] == 1 for log in trainer.state.log_history if "agent/x/rejected" in log)
        assert [len(server.versions(name)) for name in "xy"] == [1, 1]


@pytest.mark.parametrize("resampling", ["full", "speculative"])
def test_a_run_that_is_resumed_with_another_server_ends_with_the_same_weights(tmp_path, base, resampling):
    fields = TRAINED | {"resampling": resampling, "num_stages": 2, "save_strategy": "steps", "save_steps": 3}
    with serving(base) as server:
        whole = make_trainer(tmp_path / "whole", lora_team(base), **fields, **on_server(server.url))
        whole.train()
    with serving(base) as server:
        again = make_trainer(tmp_path / "again", lora_team(base), **fields, **on_server(server.url))
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
        # Those of the checkpoint, and at most one more: y speaks last
        assert [len(server.versions(name)) for name in "xy"] == [1, 1]
    assert_equal(all_weights(again), all_weights(whole))


def test_a_server_that_dies_in_the_middle_of_a_run_changes_nothing(tmp_path, base):
    fields = TRAINED | {"num_stages": 2}
    with serving(base) as server:
        undisturbed = make_trainer(tmp_path / "a", lora_team(base), **fields, **on_server(server.url))
        undisturbed.train()
        completed, versions = server.completed, [len(server.versions(name)) for name in "xy"]
    with serving(base, dies_after=completed // 2) as server:
        trainer = make_trainer(tmp_path / "b", lora_team(base), **fields, **on_server(server.url))
        with pytest.warns(UserWarning, match="The turn is repeated once the server is up again"):
            trainer.train()
        assert server.dies_after is None
        assert sum(len(server.versions(name)) for name in "xy") > sum(versions)
    assert_equal(all_weights(trainer), all_weights(undisturbed))


def test_a_run_ends_if_its_server_stays_away_and_goes_on_with_another(tmp_path, base):
    fields = TRAINED | {"num_stages": 2, "save_strategy": "steps", "save_steps": 1}
    with serving(base) as server:
        whole = make_trainer(tmp_path / "whole", lora_team(base), **fields, **on_server(server.url))
        whole.train()
        completed = server.completed
    with serving(base, dies_after=completed // 2, restarts=False) as server:
        place = on_server(server.url, vllm_server_timeout=0.5)
        trainer = make_trainer(tmp_path / "run", lora_team(base), **fields, **place)
        with (
            pytest.warns(UserWarning, match="repeated"),
            pytest.raises(ConnectionError, match="has not come back as it was"),
        ):
            trainer.train()
        assert not (tmp_path / "run" / ".vllm").exists()
    with serving(base) as server:
        again = make_trainer(tmp_path / "run", lora_team(base), **fields, **on_server(server.url))
        again.train(resume_from_checkpoint=True)
    assert_equal(all_weights(again), all_weights(whole))


def test_the_best_team_is_the_one_that_speaks_afterwards(tmp_path, base):
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_reward", "eval_strategy": "steps"}
    best |= {"eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "per_device_eval_batch_size": 8}
    with serving(base) as server:
        trainer = make_trainer(
            tmp_path / "run", lora_team(base), num_stages=2, **TRAINED, **best, **on_server(server.url)
        )
        trainer.train()
        loaded = len(server.versions("x"))
        trainer.team.collect([{"prompt": "a"}])  # the check after each publication compares
        assert len(server.versions("x")) == loaded + 1


def test_agents_of_one_turn_share_a_batch_where_a_router_mixes_them(tmp_path, base, monkeypatch):
    asked, generate = [], Fleet.generate

    def watch(self, requests):
        asked.append({request.agent for request in requests})
        return generate(self, requests)

    monkeypatch.setattr(Fleet, "generate", watch)
    with serving(base) as server:
        trainer = make_trainer(
            tmp_path / "run",
            lora_team(base, "xyz"),
            router_kind="random",
            max_turns=3,
            **TRAINED,
            **on_server(server.url),
        )
        trainer.team.collect([{"prompt": prompt} for prompt in ["a", "u", "aa", "ua"] * 4])
    assert asked == [{"x", "y", "z"}] * 3


def test_a_team_of_one_is_trained_through_a_server(tmp_path, base):
    with serving(base) as server:
        trainer = make_trainer(tmp_path / "run", base, num_stages=2, **TRAINED, **on_server(server.url))
        trainer.train()
        assert len(server.sent("/collective_rpc")) == 2
        assert max(log["sampling/max"] for log in trainer.state.log_history if "sampling/max" in log) < 1e-4
        assert trainer.args.use_vllm and not trainer.use_vllm  # as it was given; TRL's own generation is not used


CORRECTED = {"vllm_importance_sampling_correction": True, "vllm_importance_sampling_mode": "token_truncate"}


def test_the_correction_weighs_what_a_server_samples_otherwise(tmp_path, base, monkeypatch):
    batches, score = [], AgentTrainer._generate_and_score_completions

    def watch(self, *args, **kwargs):
        batches.append(score(self, *args, **kwargs))
        return batches[-1]

    monkeypatch.setattr(AgentTrainer, "_generate_and_score_completions", watch)
    with serving(base, flatter=0.8) as server:
        fields = TRAINED | {
            "num_stages": 2,
            "num_iterations": 2,
            "trust_region_radius": 0.05,
            "monitor_fraction": 0.25,
        }
        place = on_server(server.url, vllm_max_logp_difference=None, **CORRECTED)
        trainer = make_trainer(tmp_path / "run", lora_team(base), **fields, **place)
        trainer.train()
    assert len(batches) == 4 and any(batch["sampler_logps"].isfinite().any() for batch in batches)
    for batch in batches:
        own, ratio = message_mask(batch) == 1, batch["importance_sampling_ratio"]
        sampled = own & batch["sampler_logps"].isfinite()
        expected = (batch["old_per_token_logps"] - batch["sampler_logps"]).exp().clamp(max=3.0)
        torch.testing.assert_close(ratio[sampled], expected[sampled], atol=1e-5, rtol=0)
        assert (ratio[own & ~sampled] == 1).all()
        assert sampled.any() and (ratio[sampled] - 1).abs().max() > 0.05
    logs = [log for log in trainer.state.log_history if "sampling/kl" in log]
    assert all(log["sampling/importance_sampling_ratio/max"] > 1.05 and log["sampling/ess"] < 0.9999 for log in logs)
    own_kls = [value for log in logs for name, value in log.items() if name.endswith("/kl") and "agent/" in name]
    assert len(own_kls) == 4 and max(own_kls) <= 0.05


@pytest.mark.parametrize("steps", [1, 2])
def test_the_correction_of_an_exact_server_changes_nothing(tmp_path, base, steps):
    # Not Adam, whose first steps do not depend on the size of a gradient
    fields = TRAINED | {"num_stages": 2, "num_iterations": 2, "optim": "sgd", "learning_rate": 0.5}
    fields |= {"per_device_train_batch_size": 4, "steps_per_generation": 2, "gradient_accumulation_steps": 2 // steps}
    found = []
    for name, correction in (("plain", {}), ("corrected", CORRECTED)):
        with serving(base) as server:
            place = on_server(server.url, **correction)
            trainer = make_trainer(tmp_path / name, lora_team(base), **fields, **place)
            before = all_weights(trainer)
            trainer.train()
            found.append(all_weights(trainer))
    assert any(not torch.equal(before[name], weight) for name, weight in found[0].items())
    for name, weight in found[0].items():
        torch.testing.assert_close(weight, found[1][name], atol=1e-4, rtol=0)
