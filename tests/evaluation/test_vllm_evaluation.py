"""Evaluations of teams that speak through vLLM servers, which are here fake ones."""

import pytest
import torch
from datasets import Dataset
from fake_vllm import serving
from tiny import PROMPTS, make_config
from vllm_teams import lora_team, on_server, save_base

from trl_teamtr import Agent
from trl_teamtr.evaluation import EvaluationConfig, evaluate_protocols


PROTOCOLS = ["team", "single", "majority", "debate", "debate_judge", "role_play"]
CONFIG = EvaluationConfig(protocols=PROTOCOLS, debate_prompt="u", judge_prompt="u", role_prompts=["a", "u"])


def reward(completions, **kwargs):
    return [float("a" in completion) for completion in completions]


def evaluate(folder, team, url, reward_funcs=reward, config=CONFIG):
    torch.manual_seed(0)  # of adapters that are made now
    args = make_config(folder, num_rounds=2, **on_server(url))
    return evaluate_protocols(team, reward_funcs, Dataset.from_dict({"prompt": PROMPTS}), args, config)


def test_all_protocols_are_played_on_servers_that_then_hold_nothing(tmp_path):
    base = save_base(tmp_path / "base")
    with serving(base) as server:
        results = [evaluate(tmp_path / "run", lora_team(base), server.url) for _ in range(2)]
        asked = {body["model"].split("-")[1] for body in server.sent("/v1/completions")}
        assert asked == {"x", "y", "judge"} and not server.adapters and not (tmp_path / "run" / ".vllm").exists()
    assert list(results[0]) == PROTOCOLS
    assert [one.accuracies for one in results[0].values()] == [one.accuracies for one in results[1].values()]
    assert 0 < sum(results[0]["team"].accuracies) < len(PROMPTS)


def test_whole_models_are_those_of_their_servers(tmp_path):
    base, other = save_base(tmp_path / "base"), save_base(tmp_path / "other", seed=3)
    with serving(base) as server, serving(other) as own:
        team = [Agent("x", base), Agent("y", other, vllm_server_base_url=own.url)]
        alone = EvaluationConfig(protocols=["team", "single"])
        evaluate(tmp_path / "run", team, server.url, config=alone)
        assert {path for path, _ in [*server.posts, *own.posts]} == {"/v1/completions"}
        with pytest.raises(ValueError, match="its model is '.*base', theirs is '.*other'"):
            evaluate(tmp_path / "run", [Agent("y", other)], server.url, config=alone)


def test_an_evaluation_that_fails_leaves_no_adapter(tmp_path):
    base = save_base(tmp_path / "base")

    def failing(completions, **kwargs):
        raise OSError("no judge")

    with serving(base) as server:
        with pytest.raises(Exception, match="no judge"):
            evaluate(tmp_path / "run", lora_team(base), server.url, failing)
        assert server.versions("x") and not server.adapters
