"""
What credit by turn is worth where it cannot be computed: the measured variance of the gradient of LINK teams per decoded token.

    python benchmarks/gradient_variance.py runs/gradient_variance            # some twenty minutes
    python benchmarks/gradient_variance.py runs/gradient_variance --smoke    # seconds: says only that it runs

The trainer runs with a learning rate of 0, so that each stage draws the gradients of all agents at the same policies, those of a
warmed-up team. Four prompts with groups of four, advantages that nothing divides. The variance of an agent's gradient is the sum of those of its entries over
the stages; a stage is compared by the sum of its agents' times its decoded tokens, as benchmarks/credit_variance.py does
for teams that can be listed. Since no policy changes, speculative resampling decodes a rollout once for all agents: the limit of
small steps. Intervals: bootstrap over stages. Beside them, how far the mean gradient is from that of groups by rollout: the
squared distance, without what the variances add to it, over the squared mean, which is 0 for an unbiased estimator.

Prints the table and one JSON object last.
"""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from link_start import save_start
from machine import describe_machine
from quiet import QUIET
from reproduction.arms import BASE, UNDIVIDED
from size import add_size
from transformers import TrainerCallback


os.environ["CI"] = "1"  # no telemetry
PROMPTS, GROUP = 4, 4
REFERENCE = "full"
ARMS: dict[str, dict[str, Any]] = {
    REFERENCE: {"resampling": "full"},
    "turn, suffix": {"resampling": "full", "advantage_group": "turn"},
    "turn, message": {"resampling": "full", "advantage_group": "turn", "credit": "message"},
    "turn, suffix, speculative trunks": {"resampling": "speculative", "advantage_group": "turn"},
    "reversed suffix": {"resampling": "suffix", "update_order": "reversed"},
    "speculative": {"resampling": "speculative"},
}


class GradientRecorder(TrainerCallback):
    """Keeps the gradient of each update, before it is clipped or applied."""

    def __init__(self, trainer):
        self._trainer = trainer
        self.found: dict[str, list[torch.Tensor]] = {}

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        agent = self._trainer.active.agent
        gradients = [weight.grad.flatten() for weight in agent.model.parameters() if weight.grad is not None]
        self.found.setdefault(agent.name, []).append(torch.cat(gradients).clone())


@dataclass
class Gradients:
    """
    Of one arm.

    Args:
        mean (`torch.Tensor` of shape `(weights,)`): Of all agents, one after another.
        spread (`np.ndarray` of shape `(stages,)`): Squared distance of each stage's gradient from the mean, unbiased for the
            variance.
        tokens (`float`): Decoded in a stage.
    """

    mean: torch.Tensor
    spread: np.ndarray
    tokens: float


def measure(arm: str, agents: int, rounds: int, stages: int, team: Path, output: Path, size: str) -> Gradients:
    from transformers.trainer_callback import PrinterCallback

    from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer
    from trl_teamtr.tasks import link

    settings = BASE | UNDIVIDED | {"num_generations": GROUP, "num_iterations": 1, "learning_rate": 0.0}
    args = TeamTRConfig(
        str(output),
        num_stages=stages,
        num_rounds=rounds,
        per_device_train_batch_size=GROUP * PROMPTS,
        max_grad_norm=0.0,
        max_idle_updates=None,
        logging_steps=1,
        **settings | {"kl_coef": 0.0} | ARMS[arm],
        **QUIET,
    )
    trainer = TeamTRTrainer(
        [Agent(name, str(team / name)) for name in link.NAMES[:agents]],
        link.link_reward,
        args,
        train_dataset=link.make_dataset(agents, 50 if size == "smoke" else 5000, 1),
    )
    trainer.remove_callback(PrinterCallback)
    recorder = GradientRecorder(trainer)
    trainer.add_callback(recorder)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "rollout/tokens_decoded" in log]
    # What the first stage decodes has no rollouts to reuse
    tokens = sum(log["rollout/tokens_decoded"] for log in logs[agents:]) / max(1, stages - 1)
    found = torch.cat([torch.stack(recorder.found[member.name]) for member in trainer.members], dim=1)
    mean = found.mean(dim=0)
    spread = (found - mean).square().sum(dim=1).double().numpy() * stages / max(1, stages - 1)
    return Gradients(mean, spread, tokens)


def bootstrap(own: Gradients, reference: Gradients, draws: int = 2000) -> tuple[float, float, float]:
    """The cost of `own` over that of the reference, and the ends of its 95 % interval."""
    rng = np.random.default_rng(0)
    means = [
        rng.choice(each.spread, (draws, len(each.spread))).mean(axis=1) * each.tokens for each in (own, reference)
    ]
    low, high = np.quantile(means[0] / means[1], [0.025, 0.975])
    value = own.spread.mean() * own.tokens / (reference.spread.mean() * reference.tokens)
    return float(value), float(low), float(high)


def squared_bias(own: Gradients, reference: Gradients) -> float:
    """Squared distance of the means, without what their variances add, over the squared mean of the reference."""
    noise = [each.spread.mean() / len(each.spread) for each in (own, reference)]
    distance = (own.mean - reference.mean).square().sum().item() - sum(noise)
    return distance / (reference.mean.square().sum().item() - noise[1])


def main(options):
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    full = options.size == "full"
    shapes = ((2, 1), (3, 1), (6, 1), (3, 2)) if full else ((2, 1),)
    messages = {"full": 600, "quick": 40, "smoke": 4}[options.size]
    print("$ python " + " ".join(["benchmarks/gradient_variance.py", *sys.argv[1:]]))
    print(describe_machine())
    print(
        "\nvariance x tokens, over that of full resampling [95 %]; tokens per stage; squared bias over the squared mean\n"
    )
    found = {}
    for agents, rounds in shapes:
        team = folder / f"team_of_{agents}"
        save_start(team, agents, 0, options.size)
        stages, results = messages // (agents * rounds), dict[str, Gradients]()
        for arm in ARMS:
            if rounds == 1 and ARMS[arm].get("credit") == "message":
                continue  # the same as the suffix
            results[arm] = measure(arm, agents, rounds, stages, team, folder / "trainer", options.size)
            ratio = bootstrap(results[arm], results[REFERENCE])
            bias = squared_bias(results[arm], results[REFERENCE])
            print(
                f"n = {agents}, rounds = {rounds}, {stages} stages  {arm:<33} {ratio[0]:.3f} [{ratio[1]:.3f}, {ratio[2]:.3f}]  "
                f"{results[arm].tokens:7.1f}  {bias:7.3f}",
                flush=True,
            )
            found[f"{arm}, n={agents}, rounds={rounds}"] = [*(round(value, 4) for value in ratio), round(bias, 4)]
    print(json.dumps(found))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where the warmed-up teams go")
    add_size(parser)
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
