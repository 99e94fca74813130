import copy
import itertools

import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from adapters import IDS, change_adapter, logits, lora, pointers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from trl_teamtr import Agent
from trl_teamtr.agents import models
from trl_teamtr.agents.models import base_is_lost, load_models
from trl_teamtr.agents.settings import SpeakingSettings
from trl_teamtr.policy.making import load_members
from trl_teamtr.tasks.link import make_model, make_tokenizer


@pytest.mark.parametrize("kind", ["path", "object"])
@pytest.mark.parametrize("share", [True, False])
def test_lora_agents_share_the_base_unless_told_not_to(base_path, model, kind, share):
    base = base_path if kind == "path" else model
    agents = [Agent(name, base, peft_config=lora()) for name in "abc"]
    load_models(agents, SpeakingSettings(share_base_model=share))
    adapted = [get_peft_model(agent.model, agent.peft_config) for agent in agents]
    for one, other in itertools.combinations(adapted, 2):
        assert pointers(one).keys() == pointers(other).keys() and len(pointers(one)) > 10
        if share:
            assert pointers(one) == pointers(other)
        else:
            assert not set(pointers(one).values()) & set(pointers(other).values())
    before = logits(adapted[0])
    assert all(torch.equal(logits(other), before) for other in adapted[1:])
    change_adapter(adapted[1], 0.5)
    assert torch.equal(logits(adapted[0]), before) and torch.equal(logits(adapted[2]), before)
    assert not torch.allclose(logits(adapted[1]), before, atol=1e-3)


@pytest.mark.parametrize("fields", [{"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}, {"bias": "all"}])
def test_adapters_that_would_change_the_base_have_one_of_their_own(base_path, fields):
    target = {"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    agents = [
        Agent("a", base_path, peft_config=LoraConfig(**target, **fields)),
        Agent("b", base_path, peft_config=lora()),
    ]
    load_models(agents, SpeakingSettings())
    before = logits(agents[1].model)
    adapted = [get_peft_model(agent.model, agent.peft_config) for agent in agents]
    assert not set(pointers(adapted[0]).values()) & set(pointers(adapted[1]).values())
    assert torch.equal(logits(adapted[1]), before)


@pytest.mark.parametrize("kind, expected", [("MULTI_GPU", {"device_map": None}), ("NO", {})])
def test_base_is_not_spread_over_the_devices_of_other_processes(base_path, kind, expected, monkeypatch):
    def load(path, **kwargs):
        found.update({key: value for key, value in kwargs.items() if key == "device_map"})
        return AutoModelForCausalLM.from_pretrained(path)

    found = {}
    monkeypatch.setattr(models, "create_model_from_path", load)
    monkeypatch.setattr(PartialState(), "distributed_type", DistributedType[kind])
    load_models([Agent("a", base_path, peft_config=lora())], SpeakingSettings())
    assert found == expected


def test_training_one_adapter_leaves_base_and_other_adapters(base_path):
    agents = [Agent(name, base_path, peft_config=lora()) for name in "ab"]
    load_models(agents, SpeakingSettings())
    adapted = [get_peft_model(agent.model, agent.peft_config) for agent in agents]
    before = logits(adapted[1])
    optimizer = torch.optim.SGD([p for p in adapted[0].parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        adapted[0](IDS, labels=IDS).loss.backward()
        optimizer.step()
    assert torch.equal(logits(adapted[1]), before)
    assert not torch.equal(logits(adapted[0]), before)


def test_agents_on_different_bases_share_nothing(base_path, model):
    agents = [Agent("a", base_path, peft_config=lora()), Agent("b", model, peft_config=lora())]
    load_models(agents, SpeakingSettings())
    assert not set(pointers(agents[0].model).values()) & set(pointers(agents[1].model).values())


def test_whole_models_are_left_to_the_trainer(base_path, model):
    adapter = get_peft_model(copy.deepcopy(model), lora())
    agents = [Agent("a", base_path), Agent("b", model), Agent("c", adapter)]
    load_models(agents, SpeakingSettings())
    assert [agent.model for agent in agents] == [base_path, model, adapter]
    assert agents[0].processing_class is not None  # read here, since its folder has a tokenizer and no processor
    assert [agent.processing_class for agent in agents[1:]] == [None] * 2


def test_saved_adapters_are_put_on_a_shared_base(base_path, adapter_path):
    agents = [
        Agent("a", adapter_path),
        Agent("b", adapter_path, trainable=False),
        Agent("c", base_path, peft_config=lora()),
    ]
    load_models(agents, SpeakingSettings())
    trained, frozen, base = (agent.model for agent in agents)
    assert isinstance(trained, PeftModel) and isinstance(frozen, PeftModel)
    assert pointers(trained) == pointers(frozen) == pointers(base)
    assert torch.equal(logits(trained), logits(frozen))
    assert not torch.allclose(logits(trained), logits(base), atol=1e-3)
    assert {n for n, p in trained.named_parameters() if p.requires_grad} == {
        n for n, _ in trained.named_parameters() if "lora_" in n
    }
    assert not any(p.requires_grad for p in frozen.parameters())


@pytest.fixture
def half(tmp_path):
    """A base and an adapter on it, saved in bfloat16."""
    make_model(make_tokenizer(), 0).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype="auto")
    get_peft_model(base, lora()).save_pretrained(tmp_path / "adapter")
    return str(tmp_path / "base"), str(tmp_path / "adapter")


def test_a_frozen_agent_has_the_dtype_of_its_checkpoint(half):
    path = half[0]

    def loaded(trainable, **fields):
        (agent,) = load_members([Agent("a", path, trainable=trainable)], SpeakingSettings(**fields), make_tokenizer())
        return agent.model.dtype

    assert loaded(trainable=True) == torch.float32 and loaded(trainable=False) == torch.bfloat16
    assert loaded(trainable=False, model_init_kwargs={"dtype": "float16"}) == torch.float16


@pytest.mark.parametrize("shared_with_trained, dtype", [(True, torch.float32), (False, torch.bfloat16)])
def test_a_base_that_trained_agents_share_has_their_dtype(half, shared_with_trained, dtype):
    base, adapter = half
    agents = [Agent("frozen", adapter, trainable=False)]
    agents += [Agent("trained", base, peft_config=lora())] if shared_with_trained else []
    load_models(agents, SpeakingSettings())
    assert {parameter.dtype for name, parameter in agents[0].model.named_parameters() if "lora" not in name} == {dtype}


def test_saved_adapter_brings_the_tokenizer_of_its_base(adapter_path):
    own = make_tokenizer()
    agents = [Agent("a", adapter_path), Agent("b", adapter_path, processing_class=own)]
    load_models(agents, SpeakingSettings())
    assert agents[0].processing_class.get_vocab() == own.get_vocab()
    assert agents[0].processing_class.padding_side == "left"
    assert agents[1].processing_class is own


def test_saved_adapter_prefers_the_tokenizer_beside_it(adapter_path):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<|extra|>"])
    tokenizer.save_pretrained(adapter_path)
    agent = Agent("a", adapter_path)
    load_models([agent], SpeakingSettings())
    assert "<|extra|>" in agent.processing_class.get_vocab()


def test_model_init_kwargs_reach_the_base(base_path):
    agents = [Agent("a", base_path, peft_config=lora()), Agent("b", base_path)]
    load_models(agents, SpeakingSettings(model_init_kwargs={"dtype": "bfloat16", "attn_implementation": "eager"}))
    assert next(agents[0].model.parameters()).dtype == torch.bfloat16
    assert agents[0].model.config._attn_implementation == "eager"


def test_quantization_config_reaches_the_base(base_path, monkeypatch):
    given = {}

    def load(path, **kwargs):
        given.update(kwargs)
        return make_model(make_tokenizer(), seed=0)

    monkeypatch.setattr("trl_teamtr.agents.models.create_model_from_path", load)
    load_models([Agent("a", base_path, peft_config=lora())], SpeakingSettings(quantization_config="the quantization"))
    assert given["quantization_config"] == "the quantization"


def test_base_is_lost_where_the_base_has_no_path(model, adapter_path):
    assert base_is_lost(get_peft_model(model, lora()))
    assert not base_is_lost(make_model(make_tokenizer(), seed=1))
    agent = Agent("a", adapter_path)
    load_models([agent], SpeakingSettings())
    assert not base_is_lost(agent.model)


def test_missing_model_directory_is_named():
    with pytest.raises(FileNotFoundError, match="Agent 'a': there is no model directory './no/such'"):
        load_models([Agent("a", "./no/such")], SpeakingSettings())


def test_an_adapter_of_another_name_is_refused(model):
    adapter = get_peft_model(model, lora(), adapter_name="mine")
    with pytest.raises(ValueError, match="Agent 'a': the active adapter of its `PeftModel` is 'mine', but TRL trains"):
        load_models([Agent("a", adapter)], SpeakingSettings())
