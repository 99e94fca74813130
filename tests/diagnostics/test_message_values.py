"""Values of messages at each evaluation: what they are, and that training does not notice them."""

import json

import pytest
import torch
from datasets import Dataset
from tiny import PROMPTS, answer_reward, make_config, make_team, make_trainer

from trl_teamtr import TeamTRTrainer


EVALUATED = {"eval_strategy": "steps", "eval_steps": 2, "learning_rate": 2e-2, "num_stages": 2, "max_turns": 3}


def run(folder, **fields):
    trainer = make_trainer(folder, make_team(2), **EVALUATED | fields)
    trainer.train()
    lines = (folder / "transcripts.jsonl").read_text().splitlines()
    return trainer, [json.loads(line) for line in lines]


def test_a_rollout_of_each_evaluation_has_the_values_of_its_messages(tmp_path):
    trainer, entries = run(tmp_path, log_message_values=2, message_value_rollouts=8)
    valued = [entry for entry in entries if any("worth" in message for message in entry["messages"])]
    assert [(entry["step"], entry["stage"], entry["agent"]) for entry in valued] == [
        (2, 1, None),
        (2, 1, None),
        (4, 2, None),
        (4, 2, None),
    ]
    assert {entry["prompt"][0]["content"] for entry in valued} == set(PROMPTS[:2])
    for entry in valued:
        assert len(entry["messages"]) == 3
        for message in entry["messages"]:
            value, error = message["worth"]
            assert -1 <= value <= 1 and 0 <= error <= 1
    assert any(message["worth"][0] != 0 for entry in valued for message in entry["messages"])


def test_training_is_the_same_with_and_without(tmp_path):
    weights = []
    for number in (0, 1):
        trainer, entries = run(tmp_path / str(number), log_message_values=number, message_value_rollouts=2)
        weights.append(
            torch.cat(
                [weight.detach().flatten() for member in trainer.members for weight in member.model.parameters()]
            )
        )
        assert sum("worth" in json.dumps(entry) for entry in entries) == 2 * number
    assert torch.equal(*weights)


def test_it_needs_evaluations_of_something(tmp_path):
    with pytest.raises(ValueError, match="measures at evaluations, and there are none"):
        make_trainer(tmp_path, make_team(2), log_message_values=1)
    args = make_config(tmp_path, log_message_values=1, eval_on_start=True)
    with pytest.raises(ValueError, match="there is no `eval_dataset`"):
        TeamTRTrainer(make_team(2), answer_reward, args, train_dataset=Dataset.from_dict({"prompt": PROMPTS}))
