"""Counts of weights that are never loaded are those of real models."""

import pytest
import torch
from families import FAMILIES, make_family
from peft import LoraConfig, get_peft_model
from planning.teams import all_tensors, bytes_of, lora, maker, save_model
from tiny import make_model

from trl_teamtr import Agent


@pytest.mark.parametrize("tied", [False, True])
def test_full_model_has_the_weights_of_a_real_one(tmp_path, tied):
    path = save_model(tmp_path, tie_word_embeddings=tied)
    skeleton = maker()[0].make(Agent("a", path))
    from transformers import AutoModelForCausalLM

    real = AutoModelForCausalLM.from_pretrained(path)
    assert skeleton.num_parameters == skeleton.num_trained == sum(weight.numel() for weight in real.parameters())
    assert (skeleton.own_bytes, skeleton.shared_bytes) == (bytes_of(all_tensors(real)), 0)
    assert skeleton.trained_bytes == bytes_of(real.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapter_and_base_are_those_of_peft(tmp_path, dtype):
    path = save_model(tmp_path)
    skeleton = maker(model_init_kwargs={"dtype": dtype})[0].make(Agent("a", path, peft_config=lora()))
    base = make_model().to(getattr(torch, dtype))
    for buffer in base.buffers():
        buffer.data = buffer.data.float()  # as a model that is loaded in half precision has them
    shared = bytes_of(all_tensors(base))
    real = get_peft_model(base, lora())  # with float32 adapters, whatever the base has
    trained = [weight for weight in real.parameters() if weight.requires_grad]
    assert skeleton.num_trained == sum(weight.numel() for weight in trained)
    assert skeleton.shared_bytes == shared
    assert skeleton.own_bytes == skeleton.trained_bytes == bytes_of(trained)


def test_agents_on_one_base_share_it_unless_that_is_off_or_the_adapter_would_change_it(tmp_path):
    path = save_model(tmp_path)
    skeletons = [maker()[0].make(Agent(name, path, peft_config=lora())) for name in "ab"]
    assert skeletons[0].base == skeletons[1].base is not None
    assert maker(share_base_model=False)[0].make(Agent("a", path, peft_config=lora())).base is None
    changing = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", bias="all")
    assert maker()[0].make(Agent("a", path, peft_config=changing)).base is None
    assert maker()[0].make(Agent("a", path, peft_config=lora(), trainable=False)).num_trained == 0


def test_saved_adapter_is_read_from_its_config(tmp_path):
    path = save_model(tmp_path / "base")
    model = get_peft_model(make_model(), lora())
    model.peft_config["default"].base_model_name_or_path = path
    model.save_pretrained(tmp_path / "adapter")
    saved = maker()[0].make(Agent("a", str(tmp_path / "adapter")))
    fresh = maker()[0].make(Agent("a", path, peft_config=lora()))
    assert (saved.num_trained, saved.shared_bytes, saved.base) == (fresh.num_trained, fresh.shared_bytes, fresh.base)


@pytest.mark.parametrize("kind", ["gpt2", "qwen3_moe", "mamba"])
def test_weights_of_architectures(kind):
    assert kind in FAMILIES
    real = make_family(kind, 0)
    skeleton = maker()[0].make(Agent("a", real))
    assert skeleton.num_parameters == sum(weight.numel() for weight in real.parameters())
    assert skeleton.own_bytes + skeleton.shared_bytes == bytes_of(all_tensors(real))
