import itertools

import pytest
import torch
from adapters import change_adapter, logits, lora, pointers
from peft import get_peft_model

from trl_teamtr import Agent
from trl_teamtr.agents.model_copies import clone_sharing_weights
from trl_teamtr.agents.resolving import resolve_team


def test_single_model_is_a_team_of_one(make_config, base_path):
    assert resolve_team(base_path, make_config()) == [Agent("agent", base_path)]


def test_single_path_and_num_agents_make_a_homogeneous_team(make_config, base_path):
    agents = resolve_team(base_path, make_config(num_agents=3))
    assert agents == [Agent(f"agent_{i}", base_path) for i in (1, 2, 3)]


def test_single_model_object_is_copied_for_each_agent_that_trains_all_of_it(make_config, model):
    agents = resolve_team(model, make_config(num_agents=3))
    assert agents[0].model is model
    for one, other in itertools.combinations(agents, 2):
        assert not set(pointers(one.model).values()) & set(pointers(other.model).values())
    assert all(torch.equal(logits(agent.model), logits(model)) for agent in agents)


def test_single_model_object_is_not_copied_for_lora_agents(make_config, model):
    config = lora()
    agents = resolve_team(model, make_config(num_agents=2), config)
    assert all(agent.model is model and agent.peft_config is config for agent in agents)


def test_a_list_is_copied_agent_by_agent(make_config, base_path):
    given = [Agent("a", base_path), Agent("b", base_path)]
    agents = resolve_team(given, make_config(), lora())
    assert [agent.name for agent in agents] == ["a", "b"]
    assert [agent.peft_config for agent in given] == [None, None]


def test_peft_config_is_for_trainable_agents_without_one(make_config, base_path, adapter_path):
    default, own = lora(), lora()
    given = [
        Agent("plain", base_path),
        Agent("own", base_path, peft_config=own),
        Agent("frozen", base_path, trainable=False),
        Agent("adapter", adapter_path),
    ]
    agents = resolve_team(given, make_config(), default)
    assert agents[0].peft_config is default and agents[1].peft_config is own
    assert agents[2].peft_config is None and agents[3].peft_config is None


def test_num_agents_must_be_the_length_of_the_list(make_config, base_path):
    given = [Agent("a", base_path), Agent("b", base_path)]
    assert len(resolve_team(given, make_config(num_agents=2))) == 2
    with pytest.raises(ValueError, match="`num_agents` is 3, but `model` lists 2 agents"):
        resolve_team(given, make_config(num_agents=3))


def test_names_are_checked(make_config, base_path):
    with pytest.raises(ValueError, match="occur more than once: a"):
        resolve_team([Agent("a", base_path), Agent("a", base_path)], make_config())


def test_peft_model_is_one_agent(make_config, model):
    adapter = get_peft_model(model, lora())
    assert resolve_team(adapter, make_config(), lora()) == [Agent("agent", adapter)]
    with pytest.raises(ValueError, match="A `PeftModel` is one agent"):
        resolve_team(adapter, make_config(num_agents=2))


@pytest.mark.parametrize("frozen", [False, True])
def test_same_object_trained_whole_raises(make_config, model, frozen):
    given = [Agent("a", model, trainable=not frozen), Agent("b", model)]
    with pytest.raises(ValueError, match="Agents 'a' and 'b' hold the same model object, and training '[ab]' would"):
        resolve_team(given, make_config())


def test_same_object_with_one_adapter_raises_naming_the_other(make_config, model):
    given = [Agent("a", model, peft_config=lora()), Agent("c", "unused"), Agent("b", model)]
    with pytest.raises(ValueError, match="Agents 'a' and 'b' hold the same model object, and training 'b' would"):
        resolve_team(given, make_config())


def test_same_object_that_nobody_trains_whole_is_accepted(make_config, model):
    given = [
        Agent("a", model, trainable=False),
        Agent("b", model, trainable=False),
        Agent("c", model, peft_config=lora()),
    ]
    assert all(agent.model is model for agent in resolve_team(given, make_config()))


# Shared weights


def test_clone_has_the_same_tensors_in_new_modules(model):
    clone = clone_sharing_weights(model)
    for tensors in ("named_parameters", "named_buffers"):
        original, cloned = dict(getattr(model, tensors)()), dict(getattr(clone, tensors)())
        assert original.keys() == cloned.keys() and original
        assert all(original[name] is cloned[name] for name in original)
    assert not {id(m) for m in model.modules()} & {id(m) for m in clone.modules()}
    assert torch.equal(logits(model), logits(clone))


def test_wrapping_a_clone_does_not_show_in_the_original(model):
    before, names = logits(model), [name for name, _ in model.named_parameters()]
    adapter = get_peft_model(clone_sharing_weights(model), lora())
    change_adapter(adapter, 0.5)
    assert not torch.allclose(logits(adapter), before, atol=1e-3)
    assert torch.equal(logits(model), before)
    assert [name for name, _ in model.named_parameters()] == names
