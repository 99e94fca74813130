"""A router loss that TRL cannot compute is refused before training; without it the model is trained."""

import pytest
from families import make_family
from tiny import changed, make_tokenizer, make_trainer, weights

from trl_teamtr import Agent


def make_team(kind, **fields):
    return [Agent("x", make_family(kind, seed=0, vocab_size=3), processing_class=make_tokenizer(), **fields)]


def test_experts_that_trl_cannot_count_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"agent 'x' \(granitemoe\).*no num_experts.*Set `router_aux_loss_coef=0.0`"):
        make_trainer(tmp_path, make_team("granitemoe"))


def test_the_same_model_is_trained_without_router_loss(tmp_path):
    trainer = make_trainer(tmp_path, make_team("granitemoe"), router_aux_loss_coef=0.0)
    before = weights(trainer.model)
    trainer.train()
    assert changed(before, trainer.model)


@pytest.mark.parametrize("kind", ["llama", "mixtral", "qwen3_moe"])
def test_others_are_not_refused(tmp_path, kind):
    make_trainer(tmp_path, make_team(kind))
