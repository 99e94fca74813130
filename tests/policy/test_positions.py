"""What a row's tokens are worth does not depend on its padding."""

import pytest
import torch
from accelerate import Accelerator
from families import FAMILIES, LONGROPE, make_family
from peft import LoraConfig, get_peft_model

from trl_teamtr.policy.policy import Policy, add_scoring_head
from trl_teamtr.policy.positions import count_positions_from_mask, positions_of, takes_positions


ROW = torch.tensor([[5, 3, 7, 9, 4, 11, 6, 8]])


def pad(ids, left, right=0):
    padded = torch.nn.functional.pad(ids, (left, right))
    return padded, torch.nn.functional.pad(torch.ones_like(ids), (left, right))


def test_positions_count_real_tokens():
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [1, 1, 0, 1, 1, 1]])
    assert positions_of(mask).tolist() == [[0, 0, 0, 1, 2, 0], [0, 1, 0, 2, 3, 4]]


CASES = {**{kind: (kind, {}) for kind in FAMILIES}, "phi3 with longrope": ("phi3", LONGROPE)}


@pytest.mark.parametrize("kind, fields", CASES.values(), ids=list(CASES))
def test_a_row_scores_alone_as_in_a_padded_batch(kind, fields):
    model = make_family(kind, seed=0, **fields).eval()
    add_scoring_head(model, temperature=0.7)
    policy = Policy(model, Accelerator())
    ids, mask = pad(ROW, left=20, right=3)
    alone, padded = policy.token_logps(ROW, torch.ones_like(ROW), 7), policy.token_logps(ids, mask, 10)[:, :7]
    torch.testing.assert_close(alone, padded, atol=1e-5, rtol=0)
    with torch.no_grad():
        logits = policy.logits({"input_ids": ids, "attention_mask": mask, "use_cache": False})[:, 20:27]
        expected = policy.logits({"input_ids": ROW, "attention_mask": torch.ones_like(ROW), "use_cache": False})
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    assert alone.std() > 0.01


def test_a_batch_may_be_wider_than_the_table_of_positions_if_each_row_fits():
    model = make_family("gpt2", seed=0).eval()
    policy = Policy(model, Accelerator())
    ids, mask = pad(ROW.repeat(1, 7), left=40)
    with torch.no_grad():
        assert policy.logits({"input_ids": ids, "attention_mask": mask, "use_cache": False}).size(1) == 95


def test_adapters_count_too():
    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["c_attn"], init_lora_weights=False)
    model = get_peft_model(make_family("gpt2", seed=0), config).eval()
    count_positions_from_mask(model)
    ids, mask = pad(ROW, left=20)
    with torch.no_grad():
        padded = model(input_ids=ids, attention_mask=mask).logits[:, 20:]
        torch.testing.assert_close(padded, model(input_ids=ROW).logits, atol=1e-5, rtol=0)


def test_positions_that_are_given_stay():
    model = make_family("gpt2", seed=0).eval()
    call = {"input_ids": ROW, "attention_mask": torch.ones_like(ROW), "position_ids": torch.arange(8)[None] + 20}
    with torch.no_grad():
        expected = model(**call).logits
        count_positions_from_mask(model)
        assert torch.equal(model(**call).logits, expected)


def test_models_without_positions_are_left_alone():
    model = make_family("mamba", seed=0)
    assert not takes_positions(model)
    count_positions_from_mask(model)
    assert not model._forward_pre_hooks
