"""The last layer of a model by itself, and logits that are computed in parts."""

import pytest
import torch
from accelerate import Accelerator
from families import FAMILIES, VISION_FAMILIES, make_family, make_vision_family
from peft import LoraConfig, get_peft_model
from tiny import make_model

from trl_teamtr.policy.head import Head, PartialLogits, StoredLogits
from trl_teamtr.policy.policy import Policy, add_scoring_head


IDS = torch.tensor([[0, 0, 3, 5, 2, 7, 4], [6, 2, 2, 3, 5, 5, 0]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0]])
CALL = {"input_ids": IDS, "attention_mask": MASK}
KEEP = 3


def in_parts(policy):
    head = Head(policy)
    logits = PartialLogits(head, head.hidden_states(CALL, KEEP))
    return torch.cat([logits[:, 0:2], logits[:, 2:3]], dim=1)


def whole(policy):
    with torch.no_grad():
        return policy.logits({**CALL, "logits_to_keep": KEEP + 1, "use_cache": False})


@pytest.mark.parametrize("kind", [*FAMILIES, *VISION_FAMILIES])
def test_logits_in_parts_are_those_of_a_forward_pass(kind):
    """With soft caps, scales and biases, each as its architecture applies it."""
    fields = {"final_logit_softcapping": 2.0} if kind.startswith(("gemma2", "gemma3_")) else {}
    fields |= {"logit_scale": 0.3} if kind.startswith("cohere") else {}
    fields |= {"logits_scaling": 4.0} if kind.startswith("granite") else {}
    model = make_vision_family(kind, seed=0) if kind in VISION_FAMILIES else make_family(kind, seed=0, **fields)
    add_scoring_head(model, 1.0)
    policy = Policy(model.eval(), Accelerator())
    torch.testing.assert_close(in_parts(policy), whole(policy), atol=1e-5, rtol=1e-5)
    assert whole(policy).std() > 1e-3


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "lm_head"]])
def test_adapters_of_the_head_count(targets):
    model = get_peft_model(make_model(8), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=targets))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    policy = Policy(model, Accelerator())
    torch.testing.assert_close(in_parts(policy), whole(policy), atol=1e-5, rtol=1e-5)
    assert Head(policy).is_trained == ("lm_head" in targets)


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "forward of the body is wrapped"])
def test_the_body_runs_twice_and_is_left_as_it_was(wrapped):
    model, calls = make_model(8), []
    if wrapped:  # as accelerate does it
        original = model.model.forward
        model.model.forward = lambda *args, **kwargs: original(*args, **kwargs)
    before = vars(model.model).get("forward")
    hook = model.model.layers[0].register_forward_hook(lambda *args: calls.append(args[1][0].shape[:2]))
    head = Head(Policy(model, Accelerator()))
    hidden = head.hidden_states(CALL, KEEP)
    for _ in range(5):
        head.logits(hidden)
    hook.remove()
    assert [tuple(shape) for shape in calls] == [(2, 7), (1, 1)]
    assert vars(model.model).get("forward") is before
    assert not model.lm_head._forward_pre_hooks and not model.model._forward_hooks


def test_few_logits_are_computed_at_a_time():
    model, shapes = make_model(8), []
    model.lm_head.register_forward_hook(lambda module, args, output: shapes.append(output.shape[0] * output.shape[1]))
    in_parts(Policy(model, Accelerator()))
    assert shapes == [2, 2 * 2 + 1, 2 + 1]  # the last position of each row; then the parts, and one that is left out


def test_stored_logits_are_indexed_as_tensors():
    logits, rows = torch.randn(3, 4, 5), torch.arange(3)
    stored = StoredLogits(logits, torch.device("cpu"))
    assert torch.equal(stored[:, 1:3], logits[:, 1:3])
    assert torch.equal(stored[rows, rows + 1], logits[rows, rows + 1])


def test_a_model_without_a_call_of_its_head_is_named():
    model = make_model(8)
    model.get_output_embeddings = lambda: torch.nn.Linear(1, 1)
    with pytest.raises(
        NotImplementedError, match=r"Qwen3ForCausalLM calls its output embeddings 0 times.*kl_estimator='k3'"
    ):
        Head(Policy(model, Accelerator())).hidden_states(CALL, KEEP)
