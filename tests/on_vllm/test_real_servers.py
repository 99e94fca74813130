"""
Teams on real vLLM servers, on the CPU: `make test-vllm`.

Two servers are started for the whole module, one for adapters and one for an agent that trains all its weights.
"""

import json
import os
import threading

import pytest
import requests
from datasets import Dataset
from distributed.launching import derive_config, launch
from real_vllm import PEFT, SHAPES, TIMEOUT, RealServer, free_url, real_serving, write_team
from sampled_law import LAWS, check_law
from server_contract import check_contract
from tiny import BY_TURN, PROMPTS, answer_reward, changed, make_config, make_trainer, weights
from transformers import TrainerCallback
from vllm_teams import lora_team, make_fleet, on_server, save_base, speakers_of

from trl_teamtr import Agent
from trl_teamtr.evaluation import EvaluationConfig, evaluate_protocols
from trl_teamtr.policy.generation.client import ServerClient


pytestmark = pytest.mark.vllm

TRAINED = {"num_rounds": 2, "trust_region_radius": 1.0, "learning_rate": 0.005, "resampling": "speculative"}
RATIO = "sampling/importance_sampling_ratio/max"
CORRECTED = {"vllm_importance_sampling_correction": True, "vllm_importance_sampling_mode": "token_truncate"}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return [save_base(folder / name, seed, size=4, **SHAPES) for name, seed in (("base", 0), ("other", 7))]


@pytest.fixture(scope="module")
def servers(bases, tmp_path_factory):
    """One for four agents on one base, and one for an agent that trains all its weights."""
    base, other = bases
    folder, url, own = tmp_path_factory.mktemp("servers"), free_url(), free_url()
    agents = [{"name": name, "model": base, "peft": PEFT} for name in "xyz"]
    agents.append({"name": "f", "model": base, "trainable": False})
    agents.append({"name": "w", "model": other, "vllm_server_base_url": own})
    team = write_team(folder / "team.yaml", agents, url)
    adapters, whole = RealServer(team, url, folder / "a.log"), RealServer(team, own, folder / "w.log")
    with real_serving(adapters, whole):
        yield adapters, whole


def held(url: str) -> list[str]:
    """The names of the adapters that a server knows."""
    models = requests.get(f"{url}/v1/models", timeout=60).json()["data"]
    return [model["id"] for model in models if model.get("parent")]


def held_by_engine(url: str) -> int:
    """The number of adapters that its engine has in memory: some may be unloaded, and not yet forgotten."""
    answer = requests.post(f"{url}/collective_rpc", json={"method": "list_loras"}, timeout=60)
    return len(answer.json()["results"][0])


class Watch(TrainerCallback):
    """Counts the adapters of a server after each update: those that it knows, and those that its engine has."""

    def __init__(self, url):
        self.url, self.known, self.in_engine = url, [], []

    def on_step_end(self, args, state, control, **kwargs):
        self.known.append(len(held(self.url)))
        self.in_engine.append(held_by_engine(self.url))


@pytest.fixture
def tell(capsys):
    """Prints a line in spite of pytest."""

    def tell(line: str):
        with capsys.disabled():
            print(f"\n{line}", end="")

    return tell


def place(servers, **fields):
    return on_server(servers[0].url, **({"vllm_server_timeout": TIMEOUT} | fields))


def test_a_real_server_answers_as_the_fake_one(servers, bases):
    check_contract(servers[0].url, bases[0])


def test_a_team_is_evaluated_on_servers(servers, bases, tmp_path):
    team = [*lora_team(bases[0]), Agent("w", bases[1], vllm_server_base_url=servers[1].url)]
    args = make_config(tmp_path / "run", num_rounds=2, **place(servers))
    config = EvaluationConfig(protocols=["team", "single", "role_play"], role_prompts=["a", "u", "b"])
    dataset = Dataset.from_dict({"prompt": PROMPTS})
    results = evaluate_protocols(team, answer_reward, dataset, args, config)
    assert list(results) == ["team", "single", "role_play"] and held(servers[0].url) == []
    assert all(len(result.accuracies) == len(PROMPTS) for result in results.values())


def test_three_adapters_and_a_frozen_agent_on_one_server_and_a_whole_model_on_another(servers, bases, tmp_path, tell):
    base, other = bases
    team = [*lora_team(base, "xyz"), Agent("f", base, trainable=False)]
    team.append(Agent("w", other, vllm_server_base_url=servers[1].url))
    watch, fields = Watch(servers[0].url), TRAINED | place(servers, **CORRECTED)
    trainer = make_trainer(tmp_path / "run", team, num_stages=3, callbacks=[watch], **fields)
    before = {member.name: weights(member.model) for member in trainer.trained_members}
    trainer.train()
    logs = [log for log in trainer.state.log_history if "sampling/max" in log]
    largest, ratios = (max(log[name] for log in logs) for name in ("sampling/max", RATIO))
    tell(
        f"{trainer.state.global_step} updates, {len(logs)} with freshly sampled messages; largest difference of a token's "
        f"log-probabilities {largest:.1e} nats; largest weight of the correction 1 + {ratios - 1:.1e}"
    )
    tell(f"adapters after each update: known {watch.known}, in the engine {watch.in_engine}")
    assert trainer.state.global_step == 12 and len(logs) >= 9
    assert largest < 1e-4 and abs(ratios - 1) < 1e-4
    assert all(changed(before[member.name], member.model) for member in trainer.trained_members)
    # Of each of the four agents one, and one more while a new version takes the place of the old
    assert max(watch.known) <= 4 and max(watch.in_engine) <= 5 and held(servers[0].url) == []
    assert not os.path.exists(tmp_path / "run" / ".vllm")


@pytest.mark.parametrize("credit", ["suffix", "message"])
def test_branches_speak_through_servers_and_are_scored_as_sampled(servers, bases, tmp_path, tell, credit):
    team = [*lora_team(bases[0]), Agent("w", bases[1], vllm_server_base_url=servers[1].url)]
    fields = TRAINED | BY_TURN | place(servers, **CORRECTED)
    trainer = make_trainer(tmp_path / "run", team, num_stages=2, credit=credit, **fields)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "sampling/max" in log]
    tell(f"{len(logs)} updates; largest difference {max(log['sampling/max'] for log in logs):.1e} nats")
    assert len(logs) == 6 and max(log["sampling/max"] for log in logs) < 1e-4 and held(servers[0].url) == []


@pytest.mark.parametrize("fields", LAWS.values(), ids=list(LAWS))
def test_messages_of_a_real_server_have_the_law_that_they_are_verified_against(servers, bases, tmp_path, fields):
    (speaker,) = speakers_of(lora_team(bases[0], "x"), max_completion_length=2, **fields)
    fleet = make_fleet([speaker], servers[0].url, tmp_path / "sync", timeout=TIMEOUT)
    check_law(speaker, fleet, 600)
    fleet.close()
    assert held(servers[0].url) == []


def test_a_run_is_resumed_on_a_server(servers, bases, tmp_path):
    fields = TRAINED | {"num_stages": 2, "save_strategy": "steps", "save_steps": 3} | place(servers)
    make_trainer(tmp_path / "run", lora_team(bases[0]), **fields).train()
    again = make_trainer(tmp_path / "again", lora_team(bases[0]), **fields)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert again.state.global_step == 4 and held(servers[0].url) == []


def test_two_processes_speak_through_servers(servers, bases, tmp_path):
    config = derive_config("multi_gpu", tmp_path)
    launch(config, "run_vllm.py", bases[0], servers[0].url, bases[1], servers[1].url, tmp_path)
    ours = [json.loads((tmp_path / f"vllm-{rank}.json").read_text()) for rank in (0, 1)]
    assert all(found["processes"] == 2 for found in ours) and ours[0]["sums"] == ours[1]["sums"]
    assert len(ours[0]["largest"]) > 2 and max(ours[0]["largest"]) < 1e-4 and held(servers[0].url) == []


def test_an_evaluation_finds_that_a_server_has_other_weights(servers, bases, tmp_path):
    """The trained ones of the tests above."""
    team = [Agent("w", bases[1], vllm_server_base_url=servers[1].url)]
    args = make_config(tmp_path / "run", **place(servers))
    with pytest.raises(RuntimeError, match="'w': .* differ from its own by"):
        evaluate_protocols(
            team, answer_reward, Dataset.from_dict({"prompt": PROMPTS}), args, EvaluationConfig(protocols=["team"])
        )


def test_servers_that_are_killed_in_the_middle_of_a_turn_are_waited_for(servers, bases, tmp_path, monkeypatch, tell):
    base, other = bases
    team = [*lora_team(base), Agent("w", other, vllm_server_base_url=servers[1].url)]
    fields = TRAINED | {"num_stages": 3} | place(servers)
    lock, asked, complete = threading.Lock(), [0], ServerClient.complete

    def count(self, payload):
        with lock:
            asked[0] += 1
            if asked[0] == 150:
                for server in servers:
                    server.restart_after(5.0)
        return complete(self, payload)

    monkeypatch.setattr(ServerClient, "complete", count)
    trainer = make_trainer(tmp_path / "run", team, **fields)
    with pytest.warns(UserWarning, match="The turn is repeated once the server is up again"):
        trainer.train()
    tell(
        f"{trainer.state.global_step} updates, {asked[0]} requests; both servers killed at request 150, and started again"
    )
    assert [server.starts for server in servers] == [2, 2] and asked[0] > 150
    assert trainer.state.global_step == 9
    assert max(log["sampling/max"] for log in trainer.state.log_history if "sampling/max" in log) < 1e-4
    assert held(servers[0].url) == []
