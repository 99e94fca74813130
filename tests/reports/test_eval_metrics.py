import math
import statistics
from collections import defaultdict

import pytest
import torch
from datasets import Dataset
from tiny import make_team, make_trainer
from transformers import TrainerState

from trl_teamtr.evaluation import regression_rate, stability
from trl_teamtr.reports.eval_metrics import add_history, add_interval, add_returns, name_by_dataset


def test_only_the_names_of_several_datasets_are_put_in_front():
    for prefix, name in (("eval", "reward"), ("eval_hard", "hard_reward"), ("test", "reward")):
        metrics = {"reward": [1.0]}
        name_by_dataset(metrics, prefix)
        assert metrics == {name: [1.0]}


def rows(value):
    return Dataset.from_dict({"prompt": ["a", "u"] * 4, "value": [value] * 8})


def by_dataset(completions, value, **kwargs):
    return value


def test_each_dataset_has_a_reward_of_its_own_and_the_best_model_can_be_chosen_by_one(tmp_path):
    trainer = make_trainer(
        tmp_path,
        make_team(2),
        reward_funcs=by_dataset,
        dataset=rows(0.5),
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="best",
        metric_for_best_model="eval_hard_reward",
        greater_is_better=True,
    )
    trainer.eval_dataset = {"hard": rows(0.0), "easy": rows(1.0)}
    metrics = trainer.evaluate()
    assert metrics["eval_hard_reward"] == 0.0 and metrics["eval_easy_reward"] == 1.0
    assert "eval_reward" not in metrics
    trainer.train()
    assert trainer.state.best_metric == 0.0


def test_each_evaluation_tells_how_steady_those_so_far_were(tmp_path):
    trainer = make_trainer(
        tmp_path, make_team(2), dataset=rows(0.5), num_stages=2, eval_strategy="steps", eval_steps=1
    )
    trainer.args.eval_on_start = True
    trainer.evaluate()  # the weights of the first evaluation of the training
    trainer.train()
    logs = [log for log in trainer.state.log_history if "eval_reward" in log]
    rewards = [log["eval_reward"] for log in logs]
    assert len(logs) == 5 and "eval_stability" not in logs[0] and len(set(rewards)) > 1
    for i, log in enumerate(logs[1:], start=2):
        assert log["eval_stability"] == pytest.approx(stability(rewards[:i]))
        assert log["eval_team/regression_rate"] == pytest.approx(regression_rate(rewards[:i]))


def test_the_same_weights_again_are_no_change():
    state = TrainerState(global_step=4, log_history=[{"step": 0, "eval_reward": 0.5}, {"step": 4, "eval_reward": 0.9}])
    metrics = {"reward": [0.5, 0.7]}
    add_history(metrics, "eval", state)
    assert metrics["team/regression_rate"] == [0] and metrics["stability"] == [pytest.approx(0.1 / 2**0.5)]
    alone = {"reward": [0.5]}
    add_history(alone, "eval_hard", state)
    assert alone == {"reward": [0.5]}


def test_the_interval_is_over_the_means_of_prompts(tmp_path):
    values = [0.0, 1.0, 1.0, 0.5, 1.0, 0.0, 1.0, 0.25]
    dataset = Dataset.from_dict({"prompt": ["a", "u"] * 4, "value": values})
    fields = {"reward_funcs": by_dataset, "dataset": dataset, "num_generations_eval": 2}
    for batch in (2, 16):
        trainer = make_trainer(tmp_path, make_team(2), per_device_eval_batch_size=batch, **fields)
        for _ in range(2):  # an evaluation does not count the one before
            found = trainer.evaluate()["eval_reward_interval"]
            assert found == pytest.approx(1.96 * statistics.stdev(values) / math.sqrt(8))
    trainer.eval_dataset = {"hard": dataset}
    assert "eval_hard_reward_interval" in trainer.evaluate()


def test_prompts_without_a_return_are_left_out_of_the_interval():
    metrics = defaultdict(list)
    add_returns(metrics, torch.tensor([1.0, math.nan, math.nan, math.nan, 0.0, 0.5]), group=2)
    add_interval(metrics)
    assert dict(metrics) == {"reward_interval": [pytest.approx(1.96 * statistics.stdev([1.0, 0.25]) / math.sqrt(2))]}
    add_returns(metrics := defaultdict(list), torch.tensor([1.0, 0.0]), group=2)
    add_interval(metrics)
    assert dict(metrics) == {}
