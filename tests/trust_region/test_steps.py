"""The optimizer steps of a pass: which micro-batches they have, and how an update of several steps keeps its radius."""

import pytest
import torch
from accelerate import Accelerator
from tiny import make_team, make_trainer

from trl_teamtr.trust_region.steps import split_into_steps


ROWS = [{"prompt": prompt} for prompt in ("a", "ua") for _ in range(4)]


@pytest.mark.parametrize("size, expected", [(1, [[3], [0], [2], [1], [4]]), (2, [[3, 0], [2, 1], [4]])])
def test_a_step_counts_its_own_messages(size, expected):
    batches = [{"num_messages": torch.tensor([n]), "num_messages_in_batch": 10} for n in (3, 0, 2, 1, 4)]
    steps = split_into_steps(batches, size, Accelerator(cpu=True))
    assert [[int(part["num_messages"]) for part in step] for step in steps] == expected
    for step, counts in zip(steps, expected, strict=True):
        assert all(part["num_messages_in_batch"] == sum(counts) for part in step)


def test_a_pass_of_one_step_is_left_as_it_is():
    batches = [{"num_messages": torch.tensor([n]), "num_messages_in_batch": 3} for n in (1, 2)]
    assert split_into_steps(batches, 2, Accelerator(cpu=True)) == [batches]
    assert batches[0]["num_messages_in_batch"] == 3


def prepare(tmp_path, **fields):
    sizes = {"per_device_train_batch_size": 2, "steps_per_generation": 4}
    trainer = make_trainer(tmp_path, make_team(1), num_iterations=2, **sizes, **fields)
    trainer._prepare_members(4, trainer.get_train_dataloader(), None)
    trainer.model.train()
    return trainer, trainer._generate_and_score_completions(ROWS)


@pytest.mark.parametrize("accumulated, steps", [(1, 8), (2, 4), (3, 4), (4, 2)])
def test_each_pass_makes_its_steps(tmp_path, accumulated, steps):
    trainer, batch = prepare(tmp_path, gradient_accumulation_steps=accumulated, trust_region_radius=1e6)
    assert trainer.update(batch).inner_steps == steps


@pytest.mark.parametrize("estimator", ["k3", "exact"])
def test_the_first_step_that_leaves_the_radius_is_the_last_one(tmp_path, monkeypatch, estimator):
    """Measured on all messages of the update, not on those of the step."""
    fields = {"learning_rate": 3e-2, "trust_region_radius": 0.01, "kl_estimator": estimator}
    trainer, batch = prepare(tmp_path, gradient_accumulation_steps=1, **fields)
    measured, measure = [], trainer.measure_kl

    def watch(batches, snapshot=None, estimator=None):
        assert sum(len(part["completion_ids"]) for part in batches) == 8
        measured.append(measure(batches, snapshot, estimator))
        return measured[-1]

    monkeypatch.setattr(trainer, "measure_kl", watch)
    report = trainer.update(batch)
    first = next(i for i, kl in enumerate(measured) if kl > 0.01)
    assert report.inner_steps == first + 1 < 8 and report.kl_last_pass == measured[first]
    assert 0 < report.kl <= 0.01 and report.backtracks > 0 and report.kl == measured[-1]
