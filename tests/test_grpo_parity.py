"""A team of one, without penalty and radius, is TRL's `GRPOTrainer`."""

import copy

import pytest
import torch
from datasets import Dataset
from tiny import make_config, make_model, make_tokenizer
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from trl_teamtr import TeamTRTrainer
from trl_teamtr.agent_trainer import AgentTrainer
from trl_teamtr.policy.backend import PlainBackend, Written


LOSS_TYPES = ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]
DATASET = Dataset.from_dict({"prompt": ["a", "aa", "u", "ua", "au", "uu", "aau", "auu"]})


def reward(completions, **kwargs):
    return [text.count("a") - 0.3 * text.count("u") for text in completions]


class KeepGradients(TrainerCallback):
    def __init__(self):
        self.gradients, self.substeps = [], 0

    def on_substep_end(self, args, state, control, **kwargs):
        self.substeps += 1

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients.append(torch.cat([p.grad.flatten().clone() for p in model.parameters()]))


def fixed_completions(self, prompt_ids, *_):
    """Completions that depend on the prompt and the call alone, of one to three tokens."""
    self.calls = self.__dict__.get("calls", 0) + 1
    generator = torch.Generator().manual_seed(self.calls)
    completions = []
    for ids in prompt_ids:
        length = 1 + (sum(ids) + int(torch.randint(3, (), generator=generator))) % 3
        completions.append(torch.randint(0, 3, (length,), generator=generator).tolist())
    return completions, None


def fixed_messages(self, requests):
    return [Written(ids) for ids in fixed_completions(self, [request.context for request in requests])[0]]


def train(trainer_class, args, monkeypatch, model):
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", fixed_completions)
    monkeypatch.setattr(PlainBackend, "generate", fixed_messages)
    keep = KeepGradients()
    trainer = trainer_class(
        copy.deepcopy(model), reward, args, train_dataset=DATASET, processing_class=make_tokenizer(), callbacks=[keep]
    )
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return trainer.model, keep, losses


# With one micro-batch per optimizer step, a pass over the two of a generation batch has two steps
CASES = [(loss_type, "token", 0.0, 2) for loss_type in LOSS_TYPES]
CASES += [("grpo", "sequence", 0.0, 2), ("luspo", "sequence", 0.0, 2), ("dapo", "token", 0.1, 2)]
CASES += [("grpo", "sequence", 0.1, 2), ("dapo", "token", 0.0, 1), ("grpo", "token", 0.0, 1)]


@pytest.mark.parametrize("loss_type, level, beta, accumulated", CASES)
def test_team_of_one_makes_the_updates_of_grpo(tmp_path, monkeypatch, loss_type, level, beta, accumulated):
    per_update = 2 * 2 // accumulated  # iterations times optimizer steps per pass
    shared = {
        "loss_type": loss_type,
        "importance_sampling_level": level,
        "beta": beta,
        "num_iterations": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": accumulated,
        "steps_per_generation": 2,
        "max_completion_length": 3,
        "top_entropy_quantile": 0.8,
        "learning_rate": 1e-3,
    }
    model = make_model(seed=3)
    model.save_pretrained(tmp_path / "initial")
    model.config._name_or_path = str(tmp_path / "initial")  # where TRL loads the reference model from
    ours = make_config(tmp_path / "ours", num_stages=2, trust_region_radius=None, kl_coef=0.0, **shared)
    names = ("use_cpu", "bf16", "gradient_checkpointing", "report_to", "disable_tqdm", "save_strategy")
    names += ("logging_steps", "num_generations", "lr_scheduler_type")
    theirs = GRPOConfig(
        str(tmp_path / "theirs"),
        max_steps=2 * per_update,
        disable_dropout=True,
        **shared,
        **{n: getattr(ours, n) for n in names},
    )
    # The advantages are eq. 9's by design; here they are TRL's
    monkeypatch.setattr(AgentTrainer, "_team_advantages", lambda self, advantages: advantages)

    their_model, theirs, their_losses = train(GRPOTrainer, theirs, monkeypatch, model)
    our_model, ours, our_losses = train(TeamTRTrainer, ours, monkeypatch, model)

    assert len(ours.gradients) == len(theirs.gradients) == 2 * per_update
    assert ours.substeps == theirs.substeps == (4 if accumulated == 2 else 0)
    assert min(gradient.norm() for gradient in theirs.gradients) > 1e-6
    for ours_, theirs_ in zip(ours.gradients, theirs.gradients, strict=True):
        torch.testing.assert_close(ours_, theirs_, atol=1e-6, rtol=1e-5)
    # Ours logs one loss per update, the mean over its inner steps
    means = [sum(their_losses[i : i + per_update]) / per_update for i in (0, per_update)]
    assert our_losses == pytest.approx(means, abs=1e-6)
    moved = 0.0
    for start, a, b in zip(model.parameters(), our_model.parameters(), their_model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
        moved = max(moved, (a - start).abs().max().item())
    assert moved > 1e-3


def test_plain_and_chat_prompts_get_the_ids_of_grpo(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}b{% endfor %}"
    chat = Dataset.from_dict({"prompt": [[{"role": "user", "content": "aau"}], [{"role": "user", "content": "u"}]]})
    for dataset in (DATASET, chat):
        args = make_config(tmp_path, per_device_train_batch_size=4)
        trainer = TeamTRTrainer(make_model(), reward, args, train_dataset=dataset, processing_class=tokenizer)
        prompts = [dataset[0]["prompt"], dataset[1]["prompt"]]
        views = trainer.team.collect([{"prompt": prompt} for prompt in prompts]).views["agent"]
        assert [view.prompt_ids for view in views] == trainer._tokenize_prompts(prompts)[0]


def test_team_of_one_logs_what_grpo_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(AgentTrainer, "_team_advantages", lambda self, advantages: advantages)
    shared = {"num_iterations": 1, "eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 8}
    ours = make_config(tmp_path / "ours", trust_region_radius=None, kl_coef=0.0, max_completion_length=3, **shared)
    names = ("use_cpu", "bf16", "gradient_checkpointing", "report_to", "disable_tqdm", "save_strategy", "max_steps")
    names += ("logging_steps", "num_generations", "per_device_train_batch_size", "max_completion_length")
    theirs = GRPOConfig(str(tmp_path / "theirs"), **shared, **{n: getattr(ours, n) for n in names} | {"max_steps": 1})
    logs = []
    for trainer_class, args in ((GRPOTrainer, theirs), (TeamTRTrainer, ours)):
        monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", fixed_completions)
        monkeypatch.setattr(PlainBackend, "generate", fixed_messages)
        monkeypatch.setattr(PlainBackend, "calls", 0, raising=False)
        trainer = trainer_class(
            make_model(seed=3),
            reward,
            args,
            train_dataset=DATASET,
            eval_dataset=DATASET,
            processing_class=make_tokenizer(),
        )
        trainer.train()
        logs.append([log for log in trainer.state.log_history if "train_runtime" not in log])
    for their_log, our_log in zip(*logs, strict=True):
        assert [key for key in their_log if key not in our_log] == []
        same = [key for key in their_log if "completions/" in key or "reward" in key or "num_tokens" in key]
        assert len(same) >= 12
        assert {key: our_log[key] for key in same} == pytest.approx({key: their_log[key] for key in same}, abs=1e-6)
