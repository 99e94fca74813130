"""Log-probabilities are scored in a precision of their own, whatever the weights and the training passes have."""

import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from families import make_family
from peft import LoraConfig, get_peft_model
from tiny import make_model, make_tokenizer, make_trainer

from trl_teamtr import Agent
from trl_teamtr.options.team_options import PRECISIONS
from trl_teamtr.policy.policy import Policy, add_scoring_head
from trl_teamtr.policy.positions import count_positions_from_mask
from trl_teamtr.policy.precision import computes_in_tf32


IDS = torch.tensor([[0, 5, 3, 7, 9, 4], [6, 8, 2, 5, 3, 1]])
MASK = torch.tensor([[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
LOW = (torch.bfloat16, torch.float16)


@pytest.fixture
def bf16():
    """An accelerator with mixed precision; the state is one for the process."""
    AcceleratorState._reset_state()
    yield Accelerator(mixed_precision="bf16", cpu=True)
    AcceleratorState._reset_state()


def adapter(model):
    torch.manual_seed(3)
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(model, config)


def saved_head(model):
    torch.manual_seed(3)
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    return get_peft_model(model, config)


def scored(policy, as_trained=False):
    logps = policy.token_logps(IDS, MASK, IDS[:, 2:], as_trained=as_trained)
    with torch.no_grad():
        return logps, policy.logits({"input_ids": IDS, "attention_mask": MASK, "use_cache": False})


WRAPS = {"whole": lambda model: model, "adapter": adapter, "saved head": saved_head}
CASES = [(kind, "whole") for kind in ("llama", "gpt2", "gemma2", "qwen3_moe", "gpt_oss", "mamba", "cohere")]
CASES += [("qwen3", "adapter"), ("mixtral", "adapter"), ("qwen3", "saved head")]


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("kind, wrap", CASES)
def test_low_precision_weights_are_widened_while_they_are_scored(kind, wrap, dtype):
    model = make_family(kind, seed=0).to(dtype).eval()
    add_scoring_head(model, temperature=0.7)
    model = WRAPS[wrap](model)
    base = make_family(kind, seed=0).to(dtype).float().eval()
    add_scoring_head(base, temperature=0.7)
    reference = WRAPS[wrap](base).float()
    reference.load_state_dict({name: tensor.float() for name, tensor in model.state_dict().items()})
    before = {name: (parameter.data_ptr(), parameter.dtype) for name, parameter in model.named_parameters()}

    logps, logits = scored(Policy(model, Accelerator()))
    expected_logps, expected_logits = scored(Policy(reference, Accelerator()))
    assert logps.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(logps, expected_logps, atol=0, rtol=0)
    torch.testing.assert_close(logits, expected_logits, atol=0, rtol=0)
    assert {name: (p.data_ptr(), p.dtype) for name, p in model.named_parameters()} == before
    assert all(not module._forward_hooks for module in model.modules())


def test_weights_are_narrow_again_after_an_error():
    model = make_family("llama", seed=0).to(torch.bfloat16).eval()
    handle = model.model.norm.register_forward_hook(lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scored_model = Policy(model, Accelerator())
        with torch.no_grad():
            scored_model.logits({"input_ids": IDS, "attention_mask": MASK, "use_cache": False})
    handle.remove()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_mixed_precision_of_training_is_not_that_of_scoring(bf16):
    model = make_model(size=10, seed=2).eval()
    add_scoring_head(model, temperature=1.0)
    reference = copy.deepcopy(model)
    add_scoring_head(reference, temperature=1.0)
    prepared = bf16.prepare_model(model, evaluation_mode=True)
    policy = Policy(prepared, bf16)
    policy.wrap(prepared)
    assert not policy.scores_as_it_trains
    count_positions_from_mask(reference)
    labels = torch.where(MASK[:, 2:] == 0, -100, IDS[:, 2:])
    labels = torch.cat([torch.full((2, 2), -100), labels], dim=1)
    with torch.no_grad():
        expected = reference(input_ids=IDS, attention_mask=MASK, labels=labels, fused_lm_head=True).log_probs[:, -4:]
    scores, _ = scored(policy)
    assert torch.equal(scores, expected)
    trained, _ = scored(policy, as_trained=True)
    assert 1e-5 < (trained - expected).abs().max() < 0.2


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_other_precisions_are_computed_in(precision):
    model = make_model(size=10, seed=2).eval()
    add_scoring_head(model, temperature=1.0)
    exact, _ = scored(Policy(model, Accelerator()))
    found, _ = scored(Policy(model, Accelerator(), scoring_precision=precision))
    difference = (found - exact).abs().max()
    assert (1e-6 < difference < 5e-3) if precision == "float16" else (1e-4 < difference < 0.2)


@pytest.mark.parametrize("new", [True, False])
def test_tf32_is_recognised_whichever_switch_it_was(new):
    gpu, matmul = torch.device("cuda"), torch.backends.cuda.matmul
    assert not computes_in_tf32(gpu)
    try:
        if new:
            torch.backends.fp32_precision = "tf32"  # what `TrainingArguments.tf32` sets
        else:
            matmul.allow_tf32 = True
        assert computes_in_tf32(gpu) and not computes_in_tf32(torch.device("cpu"))
    finally:
        torch.backends.fp32_precision = matmul.fp32_precision = "none"
    assert not computes_in_tf32(gpu)


@pytest.mark.parametrize("estimator", ["k3", "exact"])
def test_a_float32_head_of_trl_speaks_otherwise_and_is_scored_as_without(tmp_path, estimator):
    scored, spoken = [], []
    for cast in (False, True):
        team = [Agent(name, make_model(seed=4).bfloat16(), processing_class=make_tokenizer()) for name in "xy"]
        fields = {"kl_estimator": estimator, "resampling": "speculative", "learning_rate": 1e-2, "num_stages": 1}
        trainer = make_trainer(tmp_path / str(cast), team, cast_lm_head_to_fp32=cast, **fields)
        policy, ids = trainer.speaker.policy, IDS % trainer.speaker.policy.vocab_size
        scored.append(policy.token_logps(ids, MASK, ids[:, 1:]))
        torch.manual_seed(0)
        trainer.train()
        logs = [log for log in trainer.state.log_history if "sampling/kl" in log]
        assert len(logs) == 2 and 0 < logs[0]["agent/x/kl"] <= trainer.radius
        spoken.append([log["sampling/kl"] for log in logs])
    assert (scored[0] - scored[1]).abs().max() < 1e-5 and spoken[0] != spoken[1]


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_the_nearer_the_precision_of_speech_to_that_of_scores_the_nearer_the_samples(tmp_path, weights):
    """Largest difference of a token's log-probability when it is sampled and when it is scored, in float32."""
    largest = {}
    for precision in (None, *PRECISIONS):
        AcceleratorState._reset_state()
        model = make_model(seed=4).to(getattr(torch, weights))
        fields = {"max_completion_length": 24, "num_stages": 1, "bf16": True, "speaking_precision": precision}
        trainer = make_trainer(
            tmp_path / str(precision), [Agent("x", model, processing_class=make_tokenizer())], **fields
        )
        assert trainer.speaker.policy.speaks_in_low_precision == (precision != "float32")
        trainer.train()
        (largest[precision],) = (log["sampling/max"] for log in trainer.state.log_history if "sampling/max" in log)
    AcceleratorState._reset_state()
    assert largest["float32"] < 1e-5 < largest["float16"] < largest["bfloat16"] / 2
    assert largest[None] > 2 * largest["float16"]
