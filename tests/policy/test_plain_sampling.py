"""A model's own dropout and sampling defaults must not make it say what it is not scored by."""

import warnings

import pytest
import torch
from tiny import make_model, make_team, make_tokenizer, make_trainer
from transformers import GenerationConfig, GraniteConfig, GraniteForCausalLM

from trl_teamtr import Agent
from trl_teamtr.policy.plain_sampling import drop_sampling_defaults, silence_dropout


@pytest.fixture
def model_with_dropout():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = GraniteConfig(vocab_size=3, **sizes, num_key_value_heads=1, attention_dropout=0.5, pad_token_id=1)
    return GraniteForCausalLM(config)


def spread(model):
    """How much two passes in training mode differ."""
    model.train()
    first, second = (model(torch.tensor([[0, 2, 0, 2]])).logits for _ in range(2))
    return (first - second).abs().max().item()


def test_attention_dropout_is_silenced(model_with_dropout):
    assert spread(model_with_dropout) > 0
    silence_dropout(model_with_dropout)
    assert spread(model_with_dropout) == 0


@pytest.mark.parametrize("disable", [True, False])
def test_team_has_no_dropout_unless_it_is_asked_for(tmp_path, model_with_dropout, disable):
    team = [Agent("x", model_with_dropout, processing_class=make_tokenizer())]
    trainer = make_trainer(tmp_path, team, disable_dropout=disable)
    assert (spread(trainer.model) == 0) == disable


def test_what_changes_the_law_is_unset_and_named():
    model = make_model()
    model.generation_config.update(min_p=0.9, no_repeat_ngram_size=2, top_k=7, max_new_tokens=5)
    with pytest.warns(UserWarning, match="model of agent 'x' sets min_p=0.9, no_repeat_ngram_size=2"):
        drop_sampling_defaults(model, GenerationConfig(do_sample=True), "x")
    assert (model.generation_config.min_p, model.generation_config.no_repeat_ngram_size) == (None, None)
    assert (model.generation_config.top_k, model.generation_config.max_new_tokens) == (7, 5)


def test_what_is_passed_or_plain_is_left_alone():
    model = make_model()
    model.generation_config.update(min_p=0.9, do_sample=True, temperature=0.6, use_cache=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drop_sampling_defaults(model, GenerationConfig(min_p=0.1), "x")
    assert model.generation_config.min_p == 0.9


def test_agents_sample_what_they_are_scored_by(tmp_path):
    """Each first token as often as its probability says, in the face of a default that would forbid all but one."""
    team = make_team(1)
    team[0].model.generation_config.min_p = 0.99
    with pytest.warns(UserWarning, match="min_p"):
        trainer = make_trainer(tmp_path, team, max_completion_length=1)
    contexts = [[0, 2]] * 2000
    said = torch.tensor([message.ids[0] for message in trainer.speaker.speak(contexts)])
    share = torch.bincount(said, minlength=3) / len(said)
    probability = trainer.model(torch.tensor([[0, 2]])).logits[0, -1].softmax(-1)
    assert probability.sort().values[1] > 0.02
    torch.testing.assert_close(share, probability, atol=0.05, rtol=0)
