"""Teams that train, evaluate and resume with a member behind an endpoint."""

import json
import math

import pytest
import torch
from datasets import Dataset
from fake_endpoint import KEY, answering, remote_agent
from fake_vllm import serving
from tiny import BY_TURN, PROMPTS, changed, make_config, make_team, make_trainer, weights
from transformers import TrainerCallback
from vllm_teams import lora_team, on_server, save_base

from trl_teamtr import Agent, Team, TeamTRTrainer, load_team, plan
from trl_teamtr.evaluation import EvaluationConfig, evaluate_protocols
from trl_teamtr.policy.remote import RemoteMemberError
from trl_teamtr.policy.remote.endpoint import EndpointClient


TRAINED = {"num_rounds": 2, "trust_region_radius": 1.0, "learning_rate": 0.02, "num_stages": 2}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(EndpointClient, "backoff", 0.0)


@pytest.fixture
def endpoint():
    with answering() as server:
        yield server


def make_agents(server, **fields):
    """Two trained ones, and in the middle the remote one."""
    x, z = make_team(2)
    z.name = "z"
    return [x, remote_agent(server, **fields), z]


def all_weights(trainer):
    return {f"{member.name}/{name}": p for member in trainer.members for name, p in weights(member.model).items()}


def test_a_team_trains_around_it_and_is_saved_without_the_key(tmp_path, endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint.key = KEY
    fields = {"report_to": "none", "log_completions": True, "save_strategy": "steps", "save_steps": 2}
    trainer = make_trainer(tmp_path, make_agents(endpoint, system_prompt="Be y."), **TRAINED, **fields)
    before = all_weights(trainer)
    assert [member.name for member in trainer.members] == ["x", "z"] and trainer.team.names == ("x", "y", "z")
    trainer.train()
    trainer.save_model()
    assert any(not torch.equal(before[name], p) for name, p in all_weights(trainer).items())
    logs = [log for log in trainer.state.log_history if "reward" in log]
    assert len(logs) == 4 and all(math.isfinite(log["reward"]) for log in logs)
    assert all(not any(key.startswith("agent/y/") for key in log) for log in logs)
    # Of the second and the fourth update, what `x` has changed before the remote member's messages is asked for again
    assert 0 < logs[1]["rollout/reused_fraction"] < 1
    assert 32 < len(endpoint.bodies) < 64
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert {"x", "z", "checkpoint-2", "checkpoint-4"} <= folders and "y" not in folders
    (entry,) = [each for each in json.loads((tmp_path / "team.json").read_text())["agents"] if each["name"] == "y"]
    assert entry["endpoint"] == endpoint.url and entry["model"] == "tiny" and "folder" not in entry
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    again = TeamTRTrainer(str(tmp_path), *trainer_arguments(tmp_path / "more"))
    assert again.team.names == ("x", "y", "z") and not changed(
        weights(trainer.members[1].model), again.members[1].model
    )
    assert Team.from_pretrained(str(tmp_path)).chat("au").messages[1].agent == "y"


def test_branches_do_not_ask_it_for_what_precedes_them(tmp_path, endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint.key = KEY
    fields = BY_TURN | {"resampling": "full"}
    trainer = make_trainer(tmp_path, make_agents(endpoint), num_stages=1, **fields)
    trainer.train()
    # Two trunks and six branches from the first agent on, and for the last agent two trunks
    assert len(endpoint.bodies) == 8 + 2
    said = [log["rollout/messages"] for log in trainer.state.log_history if "rollout/messages" in log]
    assert said == [24, 24]


def trainer_arguments(folder):
    dataset = Dataset.from_dict({"prompt": PROMPTS})
    return (
        lambda completions, **kwargs: [float(len(c)) for c in completions],
        make_config(folder, **TRAINED),
        dataset,
    )


class Asked(TrainerCallback):
    """How often an endpoint was asked, up to the end of each update."""

    def __init__(self, server):
        self.server, self.counts = server, []

    def on_step_end(self, args, state, control, **kwargs):
        self.counts.append(len(self.server.bodies))


@pytest.mark.parametrize("mode", ["speculative", "suffix"])
def test_where_the_endpoint_dies_nothing_is_lost(tmp_path, endpoint, mode):
    """Without any `save_strategy`. The resumed run is that of an endpoint that did not die, to the bit."""
    fields = TRAINED | {"resampling": mode}
    asked = Asked(endpoint)
    whole = make_trainer(tmp_path / "whole", make_agents(endpoint), callbacks=[asked], **fields)
    whole.train()
    for step, after in ((1, asked.counts[0]), (2, asked.counts[1] + 3)):
        with answering(dies_after=after) as mortal:
            trainer = make_trainer(tmp_path / f"{step}", make_agents(mortal), **fields)
            with pytest.raises(
                RemoteMemberError, match=f"The endpoint {mortal.url} of agent 'y' .tiny. cannot be reached"
            ):
                trainer.train()
        assert trainer.state.global_step == step
        assert (tmp_path / f"{step}" / f"checkpoint-{step}" / "manifest.json").is_file()
        resumed = make_trainer(tmp_path / f"{step}", make_agents(endpoint), **fields)
        resumed.train(resume_from_checkpoint=True)
        ours, theirs = all_weights(resumed), all_weights(whole)
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
        rewards = [[log["reward"] for log in each.state.log_history if "reward" in log] for each in (resumed, whole)]
        assert rewards[0] == rewards[1]


def test_so_it_is_where_it_dies_in_an_evaluation(tmp_path, endpoint):
    fields = TRAINED | {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 8}
    with answering() as mortal:
        trainer = make_trainer(tmp_path, make_agents(mortal), **fields)
        evaluate = trainer.evaluate

        def and_then_die(*args, **kwargs):
            mortal.dies_after = 0
            return evaluate(*args, **kwargs)

        trainer.evaluate = and_then_die
        with pytest.raises(RemoteMemberError):
            trainer.train()
    assert (tmp_path / "checkpoint-1").is_dir()
    resumed = make_trainer(tmp_path, make_agents(endpoint), **fields)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4


def test_an_endpoint_that_is_not_there_is_found_before_the_first_rollout(tmp_path):
    with answering() as server:
        pass
    with pytest.raises(RemoteMemberError, match="cannot be reached"):
        make_trainer(tmp_path, make_agents(server))
    assert not list(tmp_path.iterdir())


def test_a_wrong_key_is_found_before_the_first_rollout(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "wrong-key")
    with answering(key=KEY) as server:
        with pytest.raises(RemoteMemberError, match="OPENAI_API_KEY: the key that is there was not taken"):
            make_trainer(tmp_path, make_agents(server))


def test_diagnostics_need_nothing_of_it_but_its_messages(tmp_path, endpoint):
    """The measured policies are those of trained agents; those of a frozen one cancel. Training is the same without them."""
    found = []
    for probes in ({}, {"log_occupancy": True, "log_certificate": True, "certificate_prompts": 4}):
        trainer = make_trainer(
            tmp_path / str(len(found)), make_agents(endpoint), **TRAINED, diagnostics_every=1, **probes
        )
        trainer.train()
        found.append((trainer.state.log_history, all_weights(trainer)))
    measured = [log for log in found[1][0] if "certificate/lower_bound" in log]
    assert len(measured) == 4 and all(math.isfinite(log["occupancy/stale_gap"]) for log in measured)
    assert all(torch.equal(found[0][1][name], p) for name, p in found[1][1].items())


def test_others_speak_through_vllm_servers_beside_it(tmp_path, endpoint):
    base = save_base(tmp_path / "base")
    with serving(base) as server:
        team = [*lora_team(base, "x"), remote_agent(endpoint), *lora_team(base, "z")]
        trainer = make_trainer(tmp_path / "run", team, **TRAINED, **on_server(server.url))
        trainer.train()
        assert len(server.versions("x")) >= 2 and len(endpoint.bodies) >= 16


def test_an_evaluation_plays_it(tmp_path, endpoint):
    team = make_agents(endpoint)[:2]
    config = EvaluationConfig(["team", "single", "best_of_n", "debate"], debate_prompt="u", budget_samples=2)
    reward = lambda completions, **kwargs: [float("a" in c) for c in completions]  # noqa: E731
    rows = Dataset.from_dict({"prompt": PROMPTS})
    results = evaluate_protocols(team, reward, rows, make_config(tmp_path), config)
    assert list(results) == ["team", "single", "best_of_n", "debate"]
    records = results["team"].records
    assert results["team"].tokens == pytest.approx(sum(record["tokens"] for record in records) / len(records))
    single = [body["messages"] for body in endpoint.bodies if len(body["messages"]) == 1]
    assert [{"role": "user", "content": "aau"}] in single  # the last player is the single model
    with pytest.raises(RemoteMemberError, match="cannot be reached"):
        endpoint.close()
        evaluate_protocols(team, reward, rows, make_config(tmp_path), config)


def test_a_team_of_remote_members_alone_is_evaluated_and_not_trained(tmp_path, endpoint):
    team = [remote_agent(endpoint, name) for name in "xy"]
    rows = Dataset.from_dict({"prompt": PROMPTS})
    found = evaluate_protocols(
        team, lambda completions, **kwargs: [1.0] * len(completions), rows, make_config(tmp_path)
    )
    assert found["team"].accuracy == 1.0
    with pytest.raises(ValueError, match="No agent of the team is trainable"):
        make_trainer(tmp_path, team)


def test_a_plan_does_not_know_it(tmp_path, endpoint):
    with pytest.raises(NotImplementedError, match="A plan does not know remote members, .* of 'y'"):
        plan([Agent("x", "model"), remote_agent(endpoint)], make_config(tmp_path))


def test_agents_of_a_saved_team_are_those_that_were_saved(tmp_path, endpoint):
    trainer = make_trainer(tmp_path, make_agents(endpoint, generation_kwargs={"temperature": 0.5, "seed": None}))
    trainer.save_model()
    assert (
        load_team(str(tmp_path))[1] == make_agents(endpoint, generation_kwargs={"temperature": 0.5, "seed": None})[1]
    )
