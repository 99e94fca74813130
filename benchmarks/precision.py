"""
What the trust region measures in each scoring precision: the KL of two policies that are equal but for rounding (the floor),
the KL of policies whose true KL is known, and which drafts are refused.

    python scripts/prepare_smollm2.py runs/SmolLM2-135M-Instruct
    python benchmarks/precision.py --quick        # SmolLM2-135M-Instruct, few messages: minutes on two cores
    python benchmarks/precision.py                # more messages
    python benchmarks/precision.py --smoke        # a tiny model, seconds: says only that it runs
    python benchmarks/precision.py --parts kls idle   # a part of it

Messages of 128 tokens are sampled from the model. All its weights are then moved along one random direction, by so little that
the policy is the same (the floor), or so far that the true KL is about 0.002, 0.01 and 0.05 nats per message. The truth is k3
on the same messages in float64; each precision scores both policies by [`~trl_teamtr.policy.policy.Policy.token_logps`], as a
run does. "tf32" is simulated on a CPU: what enters a linear layer, and its weights, have 10 bits of mantissa; attention stays in float32.

Drafts are messages of the policy before it moved, by KLs of 1e-6, 5e-5 and 0.01. Block verification refuses each with a
probability, which is printed: its mean is the share of any number of drafts. In float64 it is what the rule is meant to refuse.
"drawn" is the share that the verification of a run refuses in float32, each message once.

Messages are also sampled in several precisions, and scored in float32 (benchmarks/precision_speaking.py).

Then teams are trained (benchmarks/precision_updates.py): the share of updates that change nothing, in float32 and in bfloat16
autocast, at rates that are usual for LoRA and for full weights; and the KL of accepted updates once more in float64. Last, what
the rollouts of a stage of three agents take, beside the same without resampling (benchmarks/precision_seconds.py).

Prints tables and one JSON object last: `floor_ratio`, the floor over a radius of 0.01; `kl_error`, the largest relative error
of the three KLs; and `draft_refusals`, by the length of drafts and by KL; for each precision. `idle_share` of each kind of weights;
`inside`, the accepted updates, how many are out of region and the largest ratio of a KL to the radius; and
`speculative_seconds_ratio`, with `full_seconds_ratio` beside it.
"""

import argparse
import contextlib
import copy
import json
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

from link_start import save_stand_in
from machine import describe_machine
from precision_seconds import measure_seconds
from precision_speaking import PROMPT, measure_speaking
from precision_updates import RADIUS, measure_idle, measure_inside
from size import add_size


os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
os.environ["CI"] = "1"  # no telemetry

KLS = (0.002, 0.01, 0.05)
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
# Messages and their tokens, and the same of drafts
SIZES = {
    "full": {"messages": (8, 128), "drafts": [(12, 144), (2, 512)]},
    "quick": {"messages": (4, 128), "drafts": [(8, 144)]},
    "smoke": {"messages": (2, 8), "drafts": [(4, 8)]},
}
DRAFT_KLS = (1e-6, 5e-5, 0.01)
ROWS = 8  # that are generated or scored together
# Relative to the size of each weight: as far as a run moves them to measure its floor. The true KL is in the table
NUDGE = 1e-5


class Sample:
    """
    Messages of a policy, and its KL to policies near it.

    Args:
        model: The policy, in float32.
        tokenizer: Its tokenizer.
        count, length (`int`): Number of messages and of their tokens.
    """

    def __init__(self, model, tokenizer, count: int, length: int):
        import torch
        from accelerate import Accelerator

        from trl_teamtr.policy.policy import Policy

        self._torch, self._length = torch, length
        accelerator = Accelerator()
        model.to(accelerator.device)
        self.precise = copy.deepcopy(model).double().eval()
        self.policies = {
            precision: Policy(model, accelerator, scoring_precision="float32" if precision == "tf32" else precision)
            for precision in PRECISIONS
        }
        self._model, self._tokenizer = model.eval(), tokenizer
        model.generation_config.eos_token_id = None  # nothing ends a message early, and nothing is masked either
        self._start = [weight.detach().clone() for weight in model.parameters()]
        generator = torch.Generator().manual_seed(1)
        self._direction = [
            torch.randn(weight.shape, generator=generator).to(weight) * weight.abs() for weight in self._start
        ]
        self.prompt = tokenizer(PROMPT)["input_ids"]
        torch.manual_seed(0)
        self._ids = torch.cat([self._generate(rows) for rows in _divide(count)])

    @property
    def messages(self) -> list[list[int]]:
        """Ids of the messages."""
        return self._ids[:, -self._length :].tolist()

    def _generate(self, rows: int):
        prompt = self._torch.tensor([self.prompt] * rows, device=self._model.device)
        sampling = {"do_sample": True, "top_k": 0, "pad_token_id": 0, "max_new_tokens": self._length}
        mask = self._torch.ones_like(prompt)
        return self._model.generate(prompt, attention_mask=mask, **sampling)

    def move(self, scale: float):
        """Move the policy by `scale` along the direction, from where it was."""
        with self._torch.no_grad():
            models = zip(self._model.parameters(), self.precise.parameters(), strict=True)
            for (weight, precise), start, direction in zip(models, self._start, self._direction, strict=True):
                precise.copy_(start.double() + scale * direction.double())
                weight.copy_(precise)  # rounded; both policies have the same weights
                precise.copy_(weight)

    def logps(self, precision: str):
        """Log-probabilities of the messages' tokens under the present policy."""
        new = self._ids[:, -self._length :]
        mask = self._torch.ones_like(self._ids)
        if precision == "float64":
            return self._torch.cat([self._precise_logps(ids) for ids in self._ids.split(ROWS)])
        with in_tf32(self._model) if precision == "tf32" else contextlib.nullcontext():
            return self.policies[precision].token_logps(self._ids, mask, new, batch_size=ROWS)

    def _precise_logps(self, ids):
        call = {"attention_mask": self._torch.ones_like(ids), "logits_to_keep": self._length + 1}
        with self._torch.no_grad():
            laws = self.precise(ids, **call).logits[:, :-1].log_softmax(dim=-1)
        return laws.gather(2, ids[:, -self._length :, None]).squeeze(2)

    def kl(self, precision: str, scale: float) -> float:
        """k3 between the policy and that at `scale`, in nats per message."""
        from trl_teamtr.maths.kl import k3_kl

        self.move(0.0)
        old = self.logps(precision)
        self.move(scale)
        return k3_kl(old.double(), self.logps(precision).double()).sum(dim=1).mean().item()

    def refusals(self, precision: str, scale: float) -> float:
        """
        Probability that verification refuses a message once the policy is at `scale`, mean over the messages: 1 - P of its
        last token, of which P depends on the log-ratios of its tokens alone ([`keeping_probabilities`]).
        """
        self.move(0.0)
        old = self.logps(precision)
        self.move(scale)
        walk = (self.logps(precision).double() - old.double()).cumsum(dim=1)
        return -(walk[:, -1] - walk.amax(dim=1).clamp(min=0)).expm1().mean().item()

    def drawn_refusals(self, scale: float) -> float:
        """Share of the messages that verification refuses once the policy is at `scale`, in the default precision."""
        from trl_teamtr import Agent
        from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
        from trl_teamtr.policy.making import make_speaker
        from trl_teamtr.rollouts.verification import Draft, check_drafts
        from trl_teamtr.trust_region.engines import PlainEngine
        from trl_teamtr.trust_region.snapshot import Snapshot

        agent = Agent("agent", self._model, processing_class=self._tokenizer)
        settings = SpeakingSettings(SamplingSettings(max_completion_length=self._length))
        speaker = make_speaker(agent, self.policies["float32"], self._tokenizer, settings, alone=True)
        self.move(0.0)
        before = Snapshot(PlainEngine(SimpleNamespace(model=self._model)), with_optimizer=False)
        self.move(scale)
        self._torch.manual_seed(0)
        verdicts = check_drafts(speaker, [Draft(self.prompt, self.prompt, ids) for ids in self.messages], before)
        return sum(kept < self._length for kept, _ in verdicts) / len(verdicts)

    def find_scale(self, kl: float) -> float:
        """How far the policy has to be moved for a true KL within 2 % of `kl`; the KL grows with the square of it."""
        scale = 1e-3
        for _ in range(20):
            found = self.kl("float64", scale)
            if abs(found / kl - 1) < 0.02:
                return scale
            scale *= min(10.0, max(0.1, (kl / max(found, 1e-12)) ** 0.5))
        return scale


def _divide(count: int) -> list[int]:
    return [min(ROWS, count - first) for first in range(0, count, ROWS)]


@contextlib.contextmanager
def in_tf32(model):
    """
    Context in which linear layers multiply numbers with 10 bits of mantissa, and add them in float32: on a GPU in truth, on
    a CPU by rounding what they are given.
    """
    import torch

    if model.device.type == "cuda":
        before = torch.backends.cuda.matmul.fp32_precision
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        try:
            yield
        finally:
            torch.backends.cuda.matmul.fp32_precision = before
        return

    def round_off(tensor):
        bits = tensor.contiguous().view(torch.int32)
        return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)

    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    weights = {id(layer.weight): layer.weight for layer in layers}.values()
    held = [(weight, weight.data) for weight in weights]
    hooks = [layer.register_forward_pre_hook(lambda layer, args: (round_off(args[0]),)) for layer in layers]
    try:
        for weight, data in held:
            weight.data = round_off(data)
        yield
    finally:
        for weight, data in held:
            weight.data = data
        for hook in hooks:
            hook.remove()


def make_sample(path: str, count: int, length: int) -> Sample:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trl_teamtr.policy.policy import add_scoring_head

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    add_scoring_head(model, 1.0)
    return Sample(model, AutoTokenizer.from_pretrained(path), count, length)


def measure_kls(model: str, size: str) -> dict:
    count, length = SIZES[size]["messages"]
    print(f"{count} messages of {length} tokens; KL in nats per message")
    return measure_sample(make_sample(model, count, length))


def measure_sample(sample: Sample) -> dict:
    print(f"{'precision':<12}{'floor':>11}" + "".join(f"{f'true {kl}':>13}" for kl in KLS), flush=True)
    scales = [sample.find_scale(kl) for kl in KLS]
    truth = [sample.kl("float64", scale) for scale in scales]
    print(f"{'float64':<12}{sample.kl('float64', NUDGE):11.2e}" + "".join(f"{kl:13.5f}" for kl in truth), flush=True)
    floors, errors = {}, {}
    for precision in PRECISIONS:
        floors[precision] = sample.kl(precision, NUDGE)
        found = [sample.kl(precision, scale) for scale in scales]
        errors[precision] = max(abs(kl / true - 1) for kl, true in zip(found, truth, strict=True))
        print(f"{precision:<12}{floors[precision]:11.2e}" + "".join(f"{kl:13.5f}" for kl in found), flush=True)
    return {
        "floor_ratio": {precision: float(f"{floor / RADIUS:.3g}") for precision, floor in floors.items()},
        "kl_error": {precision: float(f"{error:.3g}") for precision, error in errors.items()},
    }


def measure_drafts(model: str, size: str) -> dict:
    shares: dict[str, dict[str, dict[str, float]]] = {}
    for count, length in SIZES[size]["drafts"]:
        sample = make_sample(model, count, length)
        print(f"\nprobability that a draft of {length} tokens is refused; mean over {count} messages")
        print(f"{'precision':<16}" + "".join(f"{f'KL {kl:g}':>13}" for kl in DRAFT_KLS), flush=True)
        largest = sample.find_scale(DRAFT_KLS[-1])
        scales = [largest * (kl / DRAFT_KLS[-1]) ** 0.5 for kl in DRAFT_KLS]
        for precision in ("float64", *PRECISIONS):
            found = [sample.refusals(precision, scale) for scale in scales]
            print(f"{precision:<16}" + "".join(f"{share:13.5f}" for share in found), flush=True)
            rounded = {str(kl): float(f"{share:.3g}") for kl, share in zip(DRAFT_KLS, found, strict=True)}
            shares.setdefault(precision, {})[f"{length} tokens"] = rounded
        drawn = [sample.drawn_refusals(scale) for scale in scales]
        print(f"{'float32, drawn':<16}" + "".join(f"{share:13.5f}" for share in drawn), flush=True)
    return {"draft_refusals": shares}


PARTS = {
    "kls": measure_kls,
    "drafts": measure_drafts,
    "speaking": measure_speaking,
    "idle": measure_idle,
    "inside": measure_inside,
    "seconds": measure_seconds,
}


def main(options):
    found: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        model = save_stand_in(Path(folder)) if options.size == "smoke" else options.model
        for part in options.parts:
            found |= PARTS[part](model, options.size)
    print(describe_machine())
    print(json.dumps({"size": options.size, **found}))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--model", default="runs/SmolLM2-135M-Instruct", help="directory of the model")
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
