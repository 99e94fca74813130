"""What calls take, against real tensors of real models."""

import pytest
import torch
from families import make_family
from planning.teams import lora, maker
from tiny import make_model

from trl_teamtr import Agent


ROWS, CONTEXT, MESSAGE = 2, 12, 3


def cache_bytes(model) -> int:
    """Of the real cache at the end of a message."""
    ids = torch.ones(ROWS, CONTEXT + MESSAGE - 1, dtype=torch.long)
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=ids, use_cache=True)
    layers = output.get("past_key_values", output.get("cache_params")).layers
    values = [value for layer in layers for value in vars(layer).values()]
    values = [item for value in values for item in (value.values() if isinstance(value, dict) else [value])]
    storages = {v.untyped_storage().data_ptr(): v.untyped_storage() for v in values if isinstance(v, torch.Tensor)}
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize(
    "kind", ["qwen3", "gemma2", "mamba", "bamba"], ids=["grouped queries", "sliding window", "state", "both"]
)
def test_cache_is_that_of_a_real_model(kind):
    model, (make, calls) = make_family(kind, 0), maker()
    found = calls.generation(make.make(Agent("a", model)), ROWS, CONTEXT, MESSAGE)
    assert found.cache == pytest.approx(cache_bytes(model), abs=16)  # a length, beside the tensors


def test_cache_grows_with_rows_and_length():
    make, calls = maker()
    skeleton = make.make(Agent("a", make_model()))
    per_token = 2 * 8 * 4  # a key and a value of one head in float32
    for rows, length in ((1, 10), (3, 10), (3, 21)):
        assert calls.generation(skeleton, rows, length, 1).cache == rows * length * per_token


def test_gradients_are_there_from_the_beginning_if_they_accumulate():
    make, calls = maker()
    skeleton = make.make(Agent("a", make_model()))
    first, more = (calls.training(skeleton, 2, 12, accumulates) for accumulates in (False, True))
    assert more.gradients == skeleton.trained_bytes
    assert first.total < more.total <= first.total + 2 * skeleton.trained_bytes


def test_an_adapter_has_small_gradients_and_a_pass_without_gradient_takes_less():
    make, calls = maker()
    whole, adapter = make.make(Agent("a", make_model())), make.make(Agent("a", make_model(), peft_config=lora()))
    assert calls.training(adapter, 2, 40, True).gradients == adapter.trained_bytes < whole.trained_bytes
    assert calls.scoring(whole, 2, 40).total < calls.training(whole, 2, 40, False).total


def test_exact_kl_holds_five_copies_of_the_logits():
    make, calls = maker()
    skeleton = make.make(Agent("a", make_family("qwen3", 0, vocab_size=5000)))
    assert calls.exact_kl(skeleton, 2, 9).logits >= 5 * 2 * 9 * 5000 * 4
    assert calls.hidden_states(skeleton, 2, 20).logits < 2 * 20 * 5000 * 4
