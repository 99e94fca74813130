"""The lower bound on each update's improvement, and the measured improvement: `log_certificate=True`."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object

from ..checks.sampling_checks import can_be_verified
from ..maths.certificate import (
    Certificate,
    discounted_penalty,
    finite_horizon_penalty,
    leave_one_out_advantages,
    surrogate_terms,
)
from ..maths.kl import k3_kl
from ..rollouts.drafts import Drafts
from ..rollouts.rollouts import Rollouts
from ..trust_region.policy_kl import exact_token_kl
from ..trust_region.turn_radii import count_own_turns
from .callback import MeasuredUpdate
from .watched import Watched


class CertificateProbe:
    """
    For each update, in units of the return: `certificate/surrogate`, its `standard_error`, the `penalty` of the
    finite-horizon bound, the parts of ζ, the `lower_bound`, and `certificate/measured`: the change of the mean return
    on held-out prompts, with `measured_se`. At a stage's last update also their sums, `certificate/stage_...`. With
    `certificate_gamma` also the `penalty_discounted` and `lower_bound_discounted` of the paper's form.

    Args:
        trainer ([`Watched`]): The training.
        held_out (`Sequence[dict]`): Rows of the evaluation dataset.
    """

    SUMMED = ("surrogate", "penalty", "lower_bound", "measured")

    needs_first = False

    def __init__(self, trainer: Watched, held_out: Sequence[dict[str, Any]]):
        self._trainer = trainer
        self._verify = can_be_verified(trainer.args, [speaker.agent for speaker in trainer.team.speakers])
        # The same number on every process, since generation is a collective under ZeRO-3
        accelerator = trainer.team.accelerator
        count = math.ceil(len(held_out) / accelerator.num_processes)
        rows = [held_out[i % len(held_out)] for i in range(count * accelerator.num_processes)]
        self._rows = rows[accelerator.process_index :: accelerator.num_processes]
        self.start_stage()

    def start_stage(self):
        self._stage = dict.fromkeys(self.SUMMED, 0.0)
        self._held_out: Rollouts | None = None  # of the current team

    def measure(self, update: MeasuredUpdate) -> dict[str, float]:
        """All processes call this together."""
        found = self._certify(update) | self._compare(update)
        for name in self.SUMMED:
            self._stage[name] += found[name]
        if update.position == len(self._trainer.trained_members) - 1:
            found |= {f"stage_{name}": value for name, value in self._stage.items()}
        return {f"certificate/{name}": value for name, value in found.items()}

    def _certify(self, update: MeasuredUpdate) -> dict[str, float]:
        agent, args, group = update.agent, update.agent.args, update.agent.num_generations
        returns = fill_missing(update.fresh_returns, group)
        normalised = agent.normalise(returns, group).double()
        centred = (returns.double().view(-1, group) - returns.double().view(-1, group).mean(1, keepdim=True)).flatten()
        # Scaled back to units of the return by least squares, whatever the normalisation
        scale = (centred * normalised).sum() / normalised.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
        kl = self._kl_by_turn(update)
        own_kl = torch.tensor(gather_object(kl["own"])).mean(dim=0).tolist()
        certificate = Certificate.from_terms(
            self._terms(update, leave_one_out_advantages(returns, group), normalised * scale),
            group,
            finite_horizon_penalty(own_kl, args.advantage_bound),
        )
        found = dataclasses.asdict(certificate) | {"lower_bound": certificate.lower_bound}
        if args.certificate_gamma is not None:
            found |= self._discounted(update, returns, certificate, torch.tensor(gather_object(kl["discounted"])))
        return found

    def _terms(self, update: MeasuredUpdate, advantages: torch.Tensor, scaled: torch.Tensor) -> torch.Tensor:
        agent, scored = update.agent, update.scored
        terms = surrogate_terms(
            scored.log_ratios,
            scored.mask,
            scored.numbers,
            update.own(advantages),
            update.own(scaled),
            agent.epsilon_low,
            agent.epsilon_high,
        )
        return agent.speaker.policy.accelerator.gather(terms)

    def _kl_by_turn(self, update: MeasuredUpdate) -> dict[str, list]:
        """KL for each of this process's rows: at each of the agent's own turns, and as a discounted sum."""
        agent, scored, gamma = update.agent, update.scored, update.agent.args.certificate_gamma
        if agent.kl_estimator == "exact":
            speaker = agent.speaker
            kl = exact_token_kl(speaker.policy, scored.batch, update.snapshot, speaker.sampling.temperature)
        else:
            old = scored.batch["old_per_token_logps"]
            kl = k3_kl(old, old + scored.log_ratios)
        by_message = scored.by_message(kl * scored.mask).cpu()
        turns = count_own_turns(self._trainer.team.rules, self._trainer.team.names, agent.name)
        own = torch.zeros(len(by_message), turns, dtype=torch.float64)
        own[:, : by_message.size(1)] = by_message
        discounted = [0.0] * len(by_message)
        if gamma is not None:
            for row, transcript in enumerate(update.fresh.transcripts):
                spoken = transcript.turns_of(agent.name)
                discounted[row] = sum(
                    (1 - gamma) * gamma**turn * value
                    for turn, value in zip(spoken, by_message[row].tolist(), strict=False)
                )
        return {"own": own.tolist(), "discounted": discounted}

    def _discounted(
        self, update: MeasuredUpdate, returns: torch.Tensor, certificate: Certificate, kl: torch.Tensor
    ) -> dict[str, float]:
        args, group = update.agent.args, update.agent.num_generations
        gamma = args.certificate_gamma
        # The return is received at the last message
        lengths = gather_object([len(transcript.messages) for transcript in update.fresh.transcripts])
        discounts = torch.tensor([gamma ** (max(length, 1) - 1) for length in lengths]).to(returns)
        advantages = leave_one_out_advantages(returns * discounts, group)
        surrogate = self._terms(update, advantages, advantages)[:, 0].mean().item()
        penalty = discounted_penalty(kl.mean().item(), gamma, args.advantage_bound)
        zeta = certificate.zeta_norm + certificate.zeta_ratio + certificate.zeta_clip
        return {
            "penalty_discounted": penalty,
            "lower_bound_discounted": surrogate - penalty - zeta / (1 - gamma),
        }

    def _compare(self, update: MeasuredUpdate) -> dict[str, float]:
        """Held-out mean return after the update, minus before it."""
        trainer = self._trainer
        held_out = self._held_out
        if held_out is None:
            with update.snapshot.current_policy():
                held_out = self._keep(trainer.team.collect(self._rows), update)
        before = self._returns
        if self._verify:
            # No update was trained on these rollouts: messages that this one does not change are kept, and cancel
            drafts = Drafts(held_out, update.agent.name, update.snapshot, speculative=True)
            self._keep(trainer.team.resample(drafts), update)
        else:
            self._keep(trainer.team.collect(self._rows), update)
        change = (self._returns - before).double()
        error = (change.std() / len(change) ** 0.5).item() if len(change) > 1 else math.nan
        return {"measured": change.mean().item(), "measured_se": error}

    def _keep(self, rollouts: Rollouts, update: MeasuredUpdate) -> Rollouts:
        update.tokens_decoded += rollouts.tokens_decoded
        self._held_out = rollouts
        returns = self._trainer.compute_returns(self._rows, rollouts.transcripts)
        self._returns = fill_missing(returns, None)
        return rollouts


def fill_missing(returns: torch.Tensor, group: int | None) -> torch.Tensor:
    """Replace missing returns by the mean of their group (of all, without groups), or by 0 if there is none."""
    groups = returns.view(-1, group if group is not None else len(returns))
    return torch.where(groups.isnan(), groups.nanmean(dim=1, keepdim=True), groups).nan_to_num(nan=0.0).flatten()
