"""
What the trust region measures in each scoring precision: the KL of two policies that are equal but for rounding (the floor),
the KL of policies whose true KL is known, and which drafts are refused.

    python scripts/prepare_smollm2.py runs/SmolLM2-135M-Instruct
    python benchmarks/precision.py --quick        # SmolLM2-135M-Instruct, few messages: minutes on two cores
    python benchmarks/precision.py                # more messages
    python benchmarks/precision.py --smoke        # a tiny model, seconds: says only that it runs

Messages of 128 tokens are sampled from the model. All its weights are then moved along one random direction, by so little that
the policy is the same (the floor), or so far that the true KL is about 0.002, 0.01 and 0.05 nats per message. The truth is k3
on the same messages in float64; each precision scores both policies by [`~trl_teamtr.policy.policy.Policy.token_logps`], as a
run does. "tf32" is simulated: what enters a linear layer, and its weights, have 10 bits of mantissa; attention stays in float32.

Drafts are messages of the policy before it moved. Block verification refuses a share of them. "expected" is what its rule gives
in float64, the mean probability of a refusal: next to none at a KL of 1e-6. What is found is drawn once.

Prints a table and one JSON object last: `floor_ratio`, the floor over a radius of 0.01; `kl_error`, the largest relative error
of the three KLs; and `draft_refusals`, shares of the drafts, by KL; for each precision.
"""

import argparse
import contextlib
import copy
import itertools
import json
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

from link_start import save_stand_in
from machine import describe_machine
from size import add_size


os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
os.environ["CI"] = "1"  # no telemetry

RADIUS = 0.01
KLS = (0.002, 0.01, 0.05)
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
# Messages and their tokens, and the same of drafts
SIZES = {
    "full": {"messages": (16, 128), "drafts": (1000, 144)},
    "quick": {"messages": (4, 128), "drafts": (32, 144)},
    "smoke": {"messages": (2, 8), "drafts": (4, 8)},
}
DRAFT_KLS = (1e-6, 0.01)
ROWS = 32  # that are generated, or scored in float64, together
PROMPT = "List a few facts about the oceans, one in each line."
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
        self.precise = copy.deepcopy(model).double().eval()
        accelerator = Accelerator()
        self.policies = {
            precision: Policy(model, accelerator, scoring_precision="float32" if precision == "tf32" else precision)
            for precision in PRECISIONS
        }
        self._model, self._tokenizer = model.eval(), tokenizer
        self._start = [weight.detach().clone() for weight in model.parameters()]
        generator = torch.Generator().manual_seed(1)
        self._direction = [torch.randn(weight.shape, generator=generator) * weight.abs() for weight in self._start]
        self.prompt = tokenizer(PROMPT)["input_ids"]
        torch.manual_seed(0)
        self._ids = torch.cat([self._generate(rows) for rows in _divide(count)])

    @property
    def messages(self) -> list[list[int]]:
        """Ids of the messages."""
        return self._ids[:, -self._length :].tolist()

    def _generate(self, rows: int):
        prompt = self._torch.tensor([self.prompt] * rows)
        length = {"max_new_tokens": self._length, "min_new_tokens": self._length}
        mask = self._torch.ones_like(prompt)
        return self._model.generate(prompt, attention_mask=mask, do_sample=True, top_k=0, pad_token_id=0, **length)

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
            parts = zip(self.precise_laws(), new.split(ROWS), strict=True)
            return self._torch.cat([law.gather(2, ids[..., None]).squeeze(2) for law, ids in parts])
        with simulate_tf32(self._model) if precision == "tf32" else contextlib.nullcontext():
            return self.policies[precision].token_logps(self._ids, mask, new)

    def precise_laws(self):
        """Log-probabilities of the whole vocabulary in float64, `ROWS` messages at a time."""
        for ids in self._ids.split(ROWS):
            call = {"attention_mask": self._torch.ones_like(ids), "logits_to_keep": self._length + 1}
            with self._torch.no_grad():
                yield self.precise(ids, **call).logits[:, :-1].log_softmax(dim=-1)

    def kl(self, precision: str, scale: float) -> float:
        """k3 between the policy and that at `scale`, in nats per message."""
        from trl_teamtr.maths.kl import k3_kl

        self.move(0.0)
        old = self.logps(precision)
        self.move(scale)
        return k3_kl(old.double(), self.logps(precision).double()).sum(dim=1).mean().item()

    def refusals(self, precision: str, scale: float) -> float:
        """Share of the messages that verification refuses once the policy is at `scale`."""
        from trl_teamtr import Agent
        from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
        from trl_teamtr.policy.making import make_speaker
        from trl_teamtr.rollouts.verification import Draft, check_drafts
        from trl_teamtr.trust_region.engines import PlainEngine
        from trl_teamtr.trust_region.snapshot import Snapshot

        agent = Agent("agent", self._model, processing_class=self._tokenizer)
        settings = SpeakingSettings(SamplingSettings(max_completion_length=self._length))
        speaker = make_speaker(agent, self.policies[precision], self._tokenizer, settings, alone=True)
        self.move(0.0)
        before = Snapshot(PlainEngine(SimpleNamespace(model=self._model)), with_optimizer=False)
        self.move(scale)
        self._torch.manual_seed(0)
        drafts = [Draft(self.prompt, self.prompt, ids) for ids in self.messages]
        with simulate_tf32(self._model) if precision == "tf32" else contextlib.nullcontext():
            verdicts = check_drafts(speaker, drafts, before)
        return sum(kept < self._length for kept, _ in verdicts) / len(drafts)

    def expected_refusals(self, scale: float) -> float:
        """What the rule gives in float64: the mean probability that a message is refused."""
        from trl_teamtr.maths.block_verification import keeping_probabilities

        total, new = 0.0, self._ids[:, -self._length :].split(ROWS)
        for number, ids in enumerate(new):
            laws = []
            for place in (0.0, scale):
                self.move(place)
                laws.append(next(itertools.islice(self.precise_laws(), number, None)))
            keep, _ = keeping_probabilities(*laws, ids, self._torch.full((len(ids),), self._length))
            total += (1 - keep[:, -1]).sum().item()
        return total / len(self._ids)

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
def simulate_tf32(model):
    """Context in which linear layers multiply numbers with 10 bits of mantissa, and add them in float32."""
    import torch

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


def measure(model_path: str, size: str) -> dict:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trl_teamtr.policy.policy import add_scoring_head

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    add_scoring_head(model, 1.0)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    found = measure_kls(Sample(model, tokenizer, *SIZES[size]["messages"]), *SIZES[size]["messages"])
    return found | measure_drafts(Sample(model, tokenizer, *SIZES[size]["drafts"]), *SIZES[size]["drafts"])


def measure_kls(sample: Sample, count: int, length: int) -> dict:
    print(f"{count} messages of {length} tokens; KL in nats per message")
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
    sample.move(0.0)
    return {
        "floor_ratio": {precision: float(f"{floor / RADIUS:.3g}") for precision, floor in floors.items()},
        "kl_error": {precision: float(f"{error:.3g}") for precision, error in errors.items()},
    }


def measure_drafts(sample: Sample, count: int, length: int) -> dict:
    print(f"\nshare of {count} drafts of {length} tokens that is refused")
    print(f"{'precision':<12}" + "".join(f"{f'KL {kl:g}':>13}" for kl in DRAFT_KLS), flush=True)
    scales = [sample.find_scale(kl) for kl in DRAFT_KLS]
    expected = [sample.expected_refusals(scale) for scale in scales]
    print(f"{'expected':<12}" + "".join(f"{share:13.5f}" for share in expected), flush=True)
    shares = {"expected": dict(zip(map(str, DRAFT_KLS), expected, strict=True))}
    for precision in PRECISIONS:
        found = [sample.refusals(precision, scale) for scale in scales]
        print(f"{precision:<12}" + "".join(f"{share:13.5f}" for share in found), flush=True)
        shares[precision] = dict(zip(map(str, DRAFT_KLS), found, strict=True))
    sample.move(0.0)
    return {"draft_refusals": shares, "drafts": count}


def main(options):
    with tempfile.TemporaryDirectory() as folder:
        model = save_stand_in(Path(folder)) if options.size == "smoke" else options.model
        found = measure(model, options.size)
    print(describe_machine())
    print(json.dumps({"size": options.size, **found}))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size(parser)
    parser.add_argument("--model", default="runs/SmolLM2-135M-Instruct", help="directory of the model")
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
