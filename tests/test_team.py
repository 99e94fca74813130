import copy
import itertools
import json
import warnings

import pytest
import torch
from accelerate.utils import DistributedType
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from trl_teamtr import Agent, TeamTRConfig, load_team, team
from trl_teamtr.model_copies import clone_sharing_weights
from trl_teamtr.tasks.link import make_model, make_tokenizer
from trl_teamtr.team import (
    TEAM_FILE,
    base_is_lost,
    check_same_team,
    describe_team,
    load_models,
    resolve_team,
)


IDS = torch.tensor([[3, 8, 9, 5, 4]])


@pytest.fixture(scope="module")
def base_path(tmp_path_factory):
    """A saved model with its tokenizer."""
    path = str(tmp_path_factory.mktemp("base"))
    tokenizer = make_tokenizer()
    make_model(tokenizer, seed=0).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def model():
    return make_model(make_tokenizer(), seed=0)


def lora():
    return LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


@pytest.fixture
def adapter_path(base_path, tmp_path):
    """A saved adapter that is not the identity."""
    agent = Agent("a", base_path, peft_config=lora())
    load_models([agent], TeamTRConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none"))
    adapter = get_peft_model(agent.model, agent.peft_config)
    change_adapter(adapter, 0.5)
    path = str(tmp_path / "adapter")
    adapter.save_pretrained(path)
    return path


def pointers(model):
    """Addresses of all weights that belong to the base, by name."""
    parameters = {
        n.replace("base_model.model.", "").replace(".base_layer", ""): p for n, p in model.named_parameters()
    }
    return {name: p.data_ptr() for name, p in parameters.items() if "lora_" not in name}


def change_adapter(model, value):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(value)


@torch.no_grad()
def logits(model):
    return model.eval()(IDS).logits


# resolve_team


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


@pytest.mark.parametrize("kind", ["path", "object"])
@pytest.mark.parametrize("share", [True, False])
def test_lora_agents_share_the_base_unless_told_not_to(make_config, base_path, model, kind, share):
    base = base_path if kind == "path" else model
    agents = [Agent(name, base, peft_config=lora()) for name in "abc"]
    load_models(agents, make_config(share_base_model=share))
    models = [get_peft_model(agent.model, agent.peft_config) for agent in agents]
    for one, other in itertools.combinations(models, 2):
        assert pointers(one).keys() == pointers(other).keys() and len(pointers(one)) > 10
        if share:
            assert pointers(one) == pointers(other)
        else:
            assert not set(pointers(one).values()) & set(pointers(other).values())
    before = logits(models[0])
    assert all(torch.equal(logits(other), before) for other in models[1:])
    change_adapter(models[1], 0.5)
    assert torch.equal(logits(models[0]), before) and torch.equal(logits(models[2]), before)
    assert not torch.allclose(logits(models[1]), before, atol=1e-3)


@pytest.mark.parametrize("fields", [{"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}, {"bias": "all"}])
def test_adapters_that_would_change_the_base_have_one_of_their_own(make_config, base_path, fields):
    target = {"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    agents = [
        Agent("a", base_path, peft_config=LoraConfig(**target, **fields)),
        Agent("b", base_path, peft_config=lora()),
    ]
    load_models(agents, make_config())
    before = logits(agents[1].model)
    models = [get_peft_model(agent.model, agent.peft_config) for agent in agents]
    assert not set(pointers(models[0]).values()) & set(pointers(models[1]).values())
    assert torch.equal(logits(models[1]), before)


@pytest.mark.parametrize("kind, expected", [("MULTI_GPU", {"device_map": None}), ("NO", {})])
def test_base_is_not_spread_over_the_devices_of_other_processes(make_config, base_path, kind, expected, monkeypatch):
    def load(path, **kwargs):
        found.update({key: value for key, value in kwargs.items() if key == "device_map"})
        return AutoModelForCausalLM.from_pretrained(path)

    found, args = {}, make_config()
    monkeypatch.setattr(team, "create_model_from_path", load)
    monkeypatch.setattr(args.distributed_state, "distributed_type", DistributedType[kind])
    load_models([Agent("a", base_path, peft_config=lora())], args)
    assert found == expected


def test_training_one_adapter_leaves_base_and_other_adapters(make_config, base_path):
    agents = [Agent(name, base_path, peft_config=lora()) for name in "ab"]
    load_models(agents, make_config())
    models = [get_peft_model(agent.model, agent.peft_config) for agent in agents]
    before = logits(models[1])
    optimizer = torch.optim.SGD([p for p in models[0].parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        models[0](IDS, labels=IDS).loss.backward()
        optimizer.step()
    assert torch.equal(logits(models[1]), before)
    assert not torch.equal(logits(models[0]), before)


def test_agents_on_different_bases_share_nothing(make_config, base_path, model):
    agents = [Agent("a", base_path, peft_config=lora()), Agent("b", model, peft_config=lora())]
    load_models(agents, make_config())
    assert not set(pointers(agents[0].model).values()) & set(pointers(agents[1].model).values())


def test_whole_models_are_left_to_the_trainer(make_config, base_path, model):
    adapter = get_peft_model(copy.deepcopy(model), lora())
    agents = [Agent("a", base_path), Agent("b", model), Agent("c", adapter)]
    load_models(agents, make_config())
    assert [agent.model for agent in agents] == [base_path, model, adapter]
    assert [agent.processing_class for agent in agents] == [None] * 3


def test_saved_adapters_are_put_on_a_shared_base(make_config, base_path, adapter_path):
    agents = [
        Agent("a", adapter_path),
        Agent("b", adapter_path, trainable=False),
        Agent("c", base_path, peft_config=lora()),
    ]
    load_models(agents, make_config())
    trained, frozen, base = (agent.model for agent in agents)
    assert isinstance(trained, PeftModel) and isinstance(frozen, PeftModel)
    assert pointers(trained) == pointers(frozen) == pointers(base)
    assert torch.equal(logits(trained), logits(frozen))
    assert not torch.allclose(logits(trained), logits(base), atol=1e-3)
    assert {n for n, p in trained.named_parameters() if p.requires_grad} == {
        n for n, _ in trained.named_parameters() if "lora_" in n
    }
    assert not any(p.requires_grad for p in frozen.parameters())


def test_saved_adapter_brings_the_tokenizer_of_its_base(make_config, adapter_path):
    own = make_tokenizer()
    agents = [Agent("a", adapter_path), Agent("b", adapter_path, processing_class=own)]
    load_models(agents, make_config())
    assert agents[0].processing_class.get_vocab() == own.get_vocab()
    assert agents[0].processing_class.padding_side == "left"
    assert agents[1].processing_class is own


def test_saved_adapter_prefers_the_tokenizer_beside_it(make_config, adapter_path):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<|extra|>"])
    tokenizer.save_pretrained(adapter_path)
    agent = Agent("a", adapter_path)
    load_models([agent], make_config())
    assert "<|extra|>" in agent.processing_class.get_vocab()


def test_model_init_kwargs_reach_the_base(make_config, base_path):
    agents = [Agent("a", base_path, peft_config=lora()), Agent("b", base_path)]
    load_models(agents, make_config(model_init_kwargs={"dtype": "bfloat16", "attn_implementation": "eager"}))
    assert next(agents[0].model.parameters()).dtype == torch.bfloat16
    assert agents[0].model.config._attn_implementation == "eager"


def test_quantization_config_reaches_the_base(make_config, base_path, monkeypatch):
    given = {}

    def load(path, **kwargs):
        given.update(kwargs)
        return make_model(make_tokenizer(), seed=0)

    monkeypatch.setattr("trl_teamtr.team.create_model_from_path", load)
    load_models([Agent("a", base_path, peft_config=lora())], make_config(), "the quantization")
    assert given["quantization_config"] == "the quantization"


def test_base_is_lost_where_the_base_has_no_path(make_config, model, adapter_path):
    assert base_is_lost(get_peft_model(model, lora()))
    assert not base_is_lost(make_model(make_tokenizer(), seed=1))
    agent = Agent("a", adapter_path)
    load_models([agent], make_config())
    assert not base_is_lost(agent.model)


# Saved teams


@pytest.fixture
def saved_team(make_config, tmp_path):
    agents = [
        Agent("solver", "m", system_prompt="Solve.", learning_rate=1e-4, generation_kwargs={"temperature": 0.5}),
        Agent("critic", "m", trainable=False, trust_region_radius=0.02, chat_template_kwargs={"tone": "dry"}),
    ]
    description = describe_team(agents, make_config(num_rounds=2, router="random", stop_string="DONE"))
    for agent in agents:
        (tmp_path / agent.name).mkdir()
    (tmp_path / TEAM_FILE).write_text(json.dumps(description), encoding="utf-8")
    return str(tmp_path)


def test_load_team_gives_back_the_agents(saved_team):
    assert load_team(saved_team) == [
        Agent(
            "solver",
            f"{saved_team}/solver",
            system_prompt="Solve.",
            learning_rate=1e-4,
            generation_kwargs={"temperature": 0.5},
        ),
        Agent(
            "critic",
            f"{saved_team}/critic",
            trainable=False,
            trust_region_radius=0.02,
            chat_template_kwargs={"tone": "dry"},
        ),
    ]


def test_team_file_holds_the_rules_of_the_rollout(saved_team):
    with open(f"{saved_team}/{TEAM_FILE}", encoding="utf-8") as file:
        rollout = json.load(file)["rollout"]
    assert rollout == {"num_rounds": 2, "max_turns": None, "router": "random", "stop_string": "DONE"}


def test_directory_of_a_saved_team_is_a_team(make_config, saved_team):
    same = make_config(num_rounds=2, router="random", stop_string="DONE")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_team(saved_team, same) == load_team(saved_team)
    with pytest.warns(
        UserWarning, match="saved with num_rounds=2 \\(now 1\\), router='random' \\(now 'round_robin'\\)"
    ):
        assert resolve_team(saved_team, make_config(stop_string="DONE")) == load_team(saved_team)


def test_load_team_without_a_team_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no team.json in"):
        load_team(str(tmp_path))


def test_same_team_and_empty_directory_pass(saved_team, tmp_path):
    check_same_team(saved_team, [Agent("solver", "x"), Agent("critic", "y")])
    check_same_team(str(tmp_path / "new"), [Agent("a", "x")])


@pytest.mark.parametrize("names", [["solver"], ["critic", "solver"], ["solver", "critic", "judge"], ["a", "b"]])
def test_another_team_raises_naming_the_difference(saved_team, names):
    message = f"its agents are solver, critic; this team's are {', '.join(names)}\\."
    with pytest.raises(ValueError, match=message):
        check_same_team(saved_team, [Agent(name, "x") for name in names])


def test_missing_model_directory_is_named(make_config):
    with pytest.raises(FileNotFoundError, match="Agent 'a': there is no model directory './no/such'"):
        load_models([Agent("a", "./no/such")], make_config())
