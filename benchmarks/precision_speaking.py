"""
How far messages are sampled from the policy that scores them in float32, by the precision in which an agent speaks. Part of
benchmarks/precision.py, which prints it.
"""

import contextlib
import time


# Messages and their tokens
SIZES = {"full": (16, 128), "quick": (4, 128), "smoke": (2, 8)}
PROMPT = "List a few facts about the oceans, one in each line."
# The dtype of the weights, that of autocast (if any), and whether the output embeddings compute in float32
SPEAKING = {
    "float32": ("float32", None, False),
    "bfloat16 autocast": ("float32", "bfloat16", False),
    "bfloat16, float32 head": ("float32", "bfloat16", True),
    "bfloat16 weights": ("bfloat16", None, False),
    "float16 autocast": ("float32", "float16", False),
    "float16, float32 head": ("float32", "float16", True),
}


def measure_speaking(model: str, size: str) -> dict:
    """KL(sampler ‖ scorer) in nats per message, total variation of messages, largest difference of a token, and seconds."""
    import torch
    from accelerate import Accelerator
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trl_teamtr.maths.mismatch import mismatch
    from trl_teamtr.policy.policy import Policy, add_scoring_head

    count, length = SIZES[size]
    print(f"\n{count} messages of {length} tokens, sampled in a precision and scored in float32")
    print(f"{'speaking in':<24}{'KL':>11}{'TV':>9}{'largest':>9}{'seconds':>9}", flush=True)
    prompt = AutoTokenizer.from_pretrained(model)(PROMPT, return_tensors="pt").input_ids.repeat(count, 1)
    found = {}
    for name, (weights, autocast, wide_head) in SPEAKING.items():
        speaker = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, weights)).eval()
        add_scoring_head(speaker, 1.0)
        policy = Policy(speaker, Accelerator())
        with _float32_head(speaker) if wide_head else contextlib.nullcontext():
            ids, sampler, seconds = _speak(speaker, prompt.to(speaker.device), length, autocast)
        scorer = policy.token_logps(ids, torch.ones_like(ids), ids[:, -length:], batch_size=8)
        compared = mismatch(sampler, scorer, torch.zeros_like(ids[:, -length:]))
        kl, tv, largest = compared.kl.item() / count, compared.tv.item() / count, compared.largest.item()
        print(f"{name:<24}{kl:11.2e}{tv:9.4f}{largest:9.4f}{seconds:9.1f}", flush=True)
        found[name] = {"kl": float(f"{kl:.3g}"), "tv": round(tv, 4), "seconds": round(seconds, 1)}
    return {"speaking": found}


def _speak(model, prompt, length: int, autocast: str | None):
    """Ids of prompts and messages, the log-probabilities with which the messages were sampled, and seconds."""
    import torch
    from transformers import LogitsProcessorList, StoppingCriteriaList

    from trl_teamtr.policy.recording import Recorder

    recorder = Recorder(temperature=1.0)
    model.generation_config.eos_token_id = None  # nothing ends a message early, and nothing is masked either
    torch.manual_seed(0)
    start = time.perf_counter()
    with (
        torch.no_grad(),
        torch.autocast(prompt.device.type, getattr(torch, autocast or "bfloat16"), enabled=bool(autocast)),
    ):
        ids = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=True,
            top_k=0,
            pad_token_id=0,
            max_new_tokens=length,
            logits_processor=LogitsProcessorList([recorder]),
            stopping_criteria=StoppingCriteriaList([recorder.ending]),
        )
    return ids, torch.tensor(recorder.logps, device=ids.device), time.perf_counter() - start


@contextlib.contextmanager
def _float32_head(model):
    """Context in which the output embeddings compute in float32, within autocast too."""
    import torch

    head = model.get_output_embeddings()

    def in_float32(module, args, output):
        with torch.autocast(args[0].device.type, enabled=False):
            return torch.nn.functional.linear(args[0].float(), module.weight.float())

    hook = head.register_forward_hook(in_float32)
    try:
        yield
    finally:
        hook.remove()
