"""The size of a model's cache, and of the room for it."""

import pytest
import torch
from families import make_family
from tiny import make_model

from trl_teamtr.policy.cache import WITHOUT_DEVICE, CacheSize, find_budget, measure_cache


CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3_moe"])
def test_keys_and_values_of_a_decoder_grow_with_each_token(kind, dtype):
    model = make_family(kind, seed=0).to(dtype)
    config = model.config
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    assert measure_cache(model, CPU) == CacheSize(0, 2 * config.num_hidden_layers * heads * width * dtype.itemsize)


def test_a_recurrent_model_has_a_cache_per_row_and_a_hybrid_one_both():
    recurrent, hybrid = (measure_cache(make_family(kind, seed=0), CPU) for kind in ("mamba", "bamba"))
    assert recurrent.per_token == 0 and recurrent.per_row > 0
    assert hybrid.per_token > 0 and hybrid.per_row > 0


def test_a_measurement_changes_neither_the_mode_nor_a_generator():
    model, state = make_model().train(), torch.get_rng_state()
    measure_cache(model, CPU)
    assert model.training and torch.equal(torch.get_rng_state(), state)


def test_what_fits():
    size = CacheSize(per_row=10, per_token=2)
    assert size.fits(3, 5, budget=60) and not size.fits(3, 5, budget=59)
    assert CacheSize(0, 0).fits(10**6, 10**6, budget=1)


def test_the_budget_of_a_gpu_is_a_power_of_two_that_leaves_as_much_again(monkeypatch):
    assert find_budget(CPU) == WITHOUT_DEVICE * 2**30
    for free, reserved, allocated, expected in [(50, 20, 10, 16), (70, 0, 0, 32), (64, 0, 0, 32), (0.5, 1, 1, 0.25)]:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (int(free * 2**30), 80 * 2**30))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device, held=reserved: held * 2**30)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device, held=allocated: held * 2**30)
        assert find_budget(torch.device("cuda")) == expected * 2**30
