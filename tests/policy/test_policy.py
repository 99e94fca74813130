"""A policy by itself: logits, log-probabilities, and the temperature of its head."""

import torch
from accelerate import Accelerator
from tiny import make_model

from trl_teamtr.policy.policy import Policy, add_scoring_head


IDS = torch.tensor([[1, 0, 2, 0, 2], [2, 2, 0, 1, 1]])
MASK = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 0]])


def test_log_probabilities_are_those_of_the_logits_over_the_temperature():
    model = make_model()
    plain = (model(IDS, attention_mask=MASK).logits[:, :-1] / 0.6).log_softmax(-1)
    expected = plain.gather(2, IDS[:, 1:, None])[:, -3:, 0].detach()
    add_scoring_head(model, 0.6)
    policy = Policy(model, Accelerator())
    for batch_size in (None, 1):
        found = policy.token_logps(IDS, MASK, IDS[:, -3:], batch_size)
        torch.testing.assert_close(found * MASK[:, -3:], expected * MASK[:, -3:], atol=1e-5, rtol=1e-5)


def test_logits_are_those_of_the_model_but_for_the_last_position():
    model = make_model()
    policy = Policy(model, Accelerator())
    assert torch.equal(policy.logits({"input_ids": IDS}), model(IDS).logits[:, :-1])
    assert policy.vocab_size == 3


def test_gradient_checkpointing_is_back_after_a_call():
    model = make_model().train()
    model.gradient_checkpointing_enable()
    add_scoring_head(model, 1.0)
    policy = Policy(model, Accelerator())
    policy.token_logps(IDS, MASK, IDS[:, -2:])
    policy.logits({"input_ids": IDS, "use_cache": False})
    assert model.is_gradient_checkpointing


def test_messages_are_sampled_in_the_precision_of_speaking_or_of_the_weights():
    model = make_model()
    assert Policy(model, Accelerator()).speaking_dtype == torch.float32
    assert Policy(model, Accelerator(), speaking_precision="float16").speaking_dtype == torch.float16
    assert Policy(model.to(torch.bfloat16), Accelerator()).speaking_dtype == torch.bfloat16
