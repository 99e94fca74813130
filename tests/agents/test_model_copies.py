import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import make_model, make_team, make_tokenizer, make_trainer
from transformers import AutoModelForCausalLM

from trl_teamtr import Agent
from trl_teamtr.agents.model_copies import clone_sharing_weights, copy_untouched


IDS = torch.tensor([[2, 0, 2, 2]])


def spoken(model):
    """Log-probabilities of the law that `generate` samples from."""
    logits = model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits[:, :-1]
    return logits.log_softmax(-1).gather(-1, IDS[:, 1:, None]).squeeze(-1)


@torch.no_grad()
def check_that_agents_say_what_they_are_trained_to(trainer, before):
    for member in trainer.members:
        for parameter in member.model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        trained = member._get_per_token_logps_and_entropies(member.model, IDS, torch.ones_like(IDS), 3)[0]
        torch.testing.assert_close(spoken(member.model), trained)
        assert (trained - before).abs().max() > 1e-2


@pytest.mark.parametrize("peft_config", [None, LoraConfig(r=4, target_modules=["q_proj", "v_proj"])])
def test_team_of_a_model_that_a_trainer_had_before(tmp_path, peft_config):
    """That trainer's wrapper of `forward` holds on to the model that it was put on."""
    model = make_model()
    make_trainer(tmp_path / "before", [Agent("z", model, processing_class=make_tokenizer())])
    assert "forward" in vars(model)
    with torch.no_grad():
        before = spoken(model)
    settings = {"processing_class": make_tokenizer(), "peft_config": peft_config, "num_agents": 2}
    trainer = make_trainer(tmp_path / "team", model, **settings)
    check_that_agents_say_what_they_are_trained_to(trainer, before)


def test_copies_leave_the_original_wrapped_and_forget_its_wrappers(tmp_path):
    team = make_team(1)
    make_trainer(tmp_path, team)
    model = team[0].model
    for copied in (copy_untouched(model), clone_sharing_weights(model)):
        assert "forward" in vars(model) and "forward" not in vars(copied)
    shared = {id(p) for p in model.parameters()}
    assert {id(p) for p in clone_sharing_weights(model).parameters()} == shared
    assert not {id(p) for p in copy_untouched(model).parameters()} & shared


def test_tokenizer_for_all_is_also_that_of_a_saved_adapter(tmp_path):
    make_model(4).save_pretrained(tmp_path / "base")
    make_tokenizer(4).save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    get_peft_model(base, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    tokenizer = make_tokenizer(4)
    trainer = make_trainer(tmp_path, str(tmp_path / "adapter"), processing_class=tokenizer)
    assert trainer._tokenizer is tokenizer
    own = make_trainer(tmp_path, str(tmp_path / "adapter"))
    assert own._tokenizer.get_vocab() == tokenizer.get_vocab()
