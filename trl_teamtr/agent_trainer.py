"""One member of a team in training: TRL's `GRPOTrainer`, given its view of the team's rollouts."""

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import DistributedType
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

from .agents.agent import Agent
from .agents.settings import SpeakingSettings
from .checks.sampling_checks import choose_estimator
from .conversation.transcript import Transcript
from .lead_protocol import Lead
from .maths.advantages import group_advantages
from .maths.kl import k3_kl
from .policy.making import make_policy, make_speaker
from .policy.plain_sampling import silence_dropout
from .policy.scoring import message_mask, scored_on
from .policy.speaker import Speaker
from .reports.rollout_metrics import measure_rollouts
from .returns.own_rewards import make_own_rewards
from .returns.returns import answer_ids, answers, as_columns, reward_columns, weigh_rewards
from .returns.rewards import check_model_rewards
from .rollouts.credit import apply_credit
from .rollouts.rollouts import Rollouts
from .runs.weights import load_weights
from .teamtr_config import TeamTRConfig
from .tools import Environments
from .trust_region.engines import PlainEngine, ZeroEngine, loading_runs_no_code, make_engine
from .trust_region.entropy import EntropyState
from .trust_region.fingerprint import differ, fingerprint
from .trust_region.floor import Floors
from .trust_region.monitor import split_off_monitor
from .trust_region.policy_kl import mean_kl, token_log_ratios
from .trust_region.sampling import report_sampling
from .trust_region.snapshot import Snapshot, all_or_nothing
from .trust_region.steps import score_current, split_into_steps
from .trust_region.turn_radii import TurnRadii
from .trust_region.update import KLController, UpdateReport, backtrack, check_loss


class AgentTrainer(GRPOTrainer):
    """
    A member of a team: its model, tokenizer and optimizer are those of a [`~trl.GRPOTrainer`]. Its [`Speaker`]
    generates its messages and computes their log-probabilities.

    The changes w.r.t. [`~trl.GRPOTrainer`]:

    - `_generate` returns this agent's view of the team's rollouts instead of generating on its own.
    - `_generate_and_score_completions` is given the rollouts, and replaces the advantages by those of eq. 9.
    - `_calculate_rewards` goes to the lead, which owns the reward functions, with the ids of the final message.
    - `_get_per_token_logps_and_entropies` scores ids as sampled, and keeps the log-probabilities for the KL penalty.
    - `_compute_loss` adds that penalty (eq. 10).
    - `_prepare_inputs` returns micro-batches as they are, since [`~AgentTrainer.update`] makes the passes over them.
    - `_inner_training_loop` prepares the model and the optimizer and leaves the loop to the lead.
    - `_prepare_for_training` then determines the engine (DDP, ZeRO), on which an update depends.
    - `_load_from_checkpoint` loads all weights or raises.
    - `_build_accelerator_args` lets all members share the lead's DeepSpeed plugin.

    Args:
        agent (`Agent`): The member. Its model is passed to [`~trl.GRPOTrainer`] with the other arguments.
        lead ([`Lead`]): The trainer of the team, which may be this one.
        team_size, environments: Number of agents of the team, and the [`Environments`] on which they act, if any.

    Attributes:
        speaker ([`Speaker`]): Generates and scores the agent's messages.
    """

    # Attributes of `GRPOTrainer`, with their types in a team
    args: TeamTRConfig
    model: PreTrainedModel
    model_wrapped: Any
    optimizer: torch.optim.Optimizer
    lr_scheduler: Any
    num_generations: int
    num_generations_eval: int
    chat_template_kwargs: dict[str, Any]
    pad_to_multiple_of: int | None
    _logs: dict[str, Any]

    def __init__(self, agent: Agent, lead: Lead, team_size: int, environments: Environments | None, **kwargs):
        self.agent, self.name, self.lead = agent, agent.name, lead
        super().__init__(**kwargs)
        if not agent.trainable:
            self.model.requires_grad_(False)
        if self.args.disable_dropout:
            silence_dropout(self.model)
        # TRL reuses a batch by counting steps; here `update` does it. With 1, TRL computes no old log-probabilities,
        # which the first pass yields at no cost, and the sampler repeats a batch only for the micro-batches.
        self.num_iterations = 1
        self.speaker = self._make_speaker(team_size, environments)
        self.eos_token_ids = self.speaker.eos_token_ids  # TRL's own leave out those of `generation_kwargs`
        self.radius = agent.radius_in(self.args)
        self.kl_estimator = choose_estimator(self.args, self.radius)
        self.own_rewards = make_own_rewards(agent, self.args, self.accelerator)
        self.floors = Floors()
        self.turn_radii = TurnRadii(self.radius)
        self.controller = KLController(self.args.kl_coef, self.radius, adaptive=self.args.kl_controller == "adaptive")
        self.engine: PlainEngine | ZeroEngine = PlainEngine(self)
        # Length of this agent's learning-rate schedule, which `Trainer.train` does not pass on; updates of the run before it
        self.num_updates = self.joined = 0
        # What TRL's `_generate_and_score_completions` does not pass to `_generate` and `_calculate_rewards`, and
        # what it does not return of the latter
        self._rollouts: Rollouts | None = None
        self.returns = torch.empty(0)
        # What TRL's `_compute_loss` does not return, and what it and the above do not pass on: the ids as sampled
        self._last_logps = torch.empty(0)
        self._sampled_ids: torch.Tensor | None = None

    def _make_speaker(self, team_size: int, environments: Environments | None) -> Speaker:
        return make_speaker(
            self.agent,
            make_policy(self.model, self.accelerator, self.args),
            self.processing_class,
            SpeakingSettings.of(self.args, environments=environments),
            alone=team_size == 1,
            before_use=lambda: self.lead.residency.use(self),
        )

    @property
    def is_trained(self) -> bool:
        """Whether the agent has updates."""
        return self.agent.trainable

    # TRL's hooks

    def _generate_and_score_completions(
        self, inputs: list[dict[str, Any]], rollouts: Rollouts | None = None
    ) -> dict[str, torch.Tensor | Any]:
        assert rollouts is not None  # TRL itself calls this only in an evaluation, for which the lead collects them
        rows = [dict(row) for row in inputs]  # TRL writes the transcripts into the rows, which all agents share
        self._rollouts = rollouts
        self.speaker.use()
        own = self.speaker.view_batch(rollouts.views[self.name], self.pad_to_multiple_of)
        self._sampled_ids = own["sampled_ids"]
        output = super()._generate_and_score_completions(rows)
        self._rollouts = self._sampled_ids = None
        # `mask_truncated_completions` leaves rows out of the loss (`tool_mask`); the KL counts all messages (eq. 11)
        output |= {name: tensor for name, tensor in own.items() if name != "tool_mask"}
        output["advantages"] = self._team_advantages(output["advantages"])
        apply_credit(output, rollouts)
        output["num_messages_in_batch"] = self.accelerator.gather(output["num_messages"].sum()).sum()
        return output

    def _team_advantages(self, trl_advantages: torch.Tensor) -> torch.Tensor:
        """Advantages (eq. 9) of the rewards just computed, which also replace TRL's in the log of completions."""
        args, returns, mode = self.args, self.returns, "train" if self.model.training else "eval"
        if self.multi_objective_aggregation != "sum_then_normalize":
            clip = args.advantage_clip
            return trl_advantages if clip is None else trl_advantages.clamp(-clip, clip)
        group = self.num_generations if mode == "train" else self.num_generations_eval
        advantages = self.normalise(returns, group)
        logged = self._logs["advantages"]
        for _ in range(min(len(advantages), len(logged))):
            logged.pop()
        logged.extend(advantages.tolist())
        first = self.accelerator.process_index * len(trl_advantages)
        return advantages[first : first + len(trl_advantages)]

    def normalise(self, returns: torch.Tensor, group: int) -> torch.Tensor:
        """Advantages (eq. 9) of returns of all processes, of groups of `group` rollouts of a prompt."""
        clip, epsilon = self.args.advantage_clip, self.args.advantage_epsilon
        return group_advantages(returns, group, self.scale_rewards, clip, epsilon)

    def _generate(self, prompts: list):
        mode, rollouts = "train" if self.model.training else "eval", self._current_rollouts()
        transcripts = rollouts.transcripts
        found = measure_rollouts(rollouts, self.name, self.accelerator, self.speaker.tools is not None)
        if mode == "train":
            self.state.num_input_tokens_seen += found.num_tokens
        self._metrics[mode]["num_tokens"] = [self.state.num_input_tokens_seen]
        for name, value in found.values.items():
            self._metrics[mode][name].append(value)
        self._log_completion_extra("transcript", [str(transcript) for transcript in transcripts])
        extra_fields = as_columns(reward_columns(transcript) for transcript in transcripts)
        prompts, completions, masks, logps = rollouts.sequences_of(self.name)
        sampled = logps if self.use_vllm else None  # for TRL's importance-sampling correction
        return prompts, completions, masks, answers(transcripts), sampled, extra_fields, None, None

    def _current_rollouts(self) -> Rollouts:
        assert self._rollouts is not None  # set by `_generate_and_score_completions`, within which TRL calls
        return self._rollouts

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        mode, rollouts = "train" if self.model.training else "eval", self._current_rollouts()
        transcripts = rollouts.transcripts
        rewards = self.lead.team_rewards(inputs, prompts, completions, transcripts)
        self.returns = weigh_rewards(rewards, self.reward_weights)
        self._metrics[mode]["team/reward"].append(self.returns[:: rollouts.team_every].nanmean().item())
        if self.own_rewards is not None and mode == "train":  # an evaluation is the team's
            logs: dict = {"log_extra": self._log_completion_extra, "log_metric": self._log_metric}
            self.returns = self.own_rewards.add(self.returns, inputs, transcripts, trainer_state=self.state, **logs)
        return rewards

    def team_rewards(
        self, inputs: list[dict[str, Any]], prompts: list, completions: list, transcripts: list[Transcript]
    ) -> torch.Tensor:
        """
        Rewards of rollouts, by TRL and with this member's reward functions.

        Returns:
            `torch.Tensor` of shape `(rows of all processes, functions)`.

        Raises:
            `ValueError`: If a reward model returns no finite reward.
        """
        rewards = super()._calculate_rewards(inputs, prompts, completions, answer_ids(transcripts))
        check_model_rewards(rewards, self.reward_funcs, self.reward_func_names)
        return rewards

    def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
        called = model if self._sampled_ids is None else scored_on(model, self._sampled_ids)
        output = super()._get_per_token_logps_and_entropies(called, *args, **kwargs)
        self._last_logps = output[0]
        return output

    def _prepare_inputs(self, generation_batch):
        return generation_batch if self.model.training else super()._prepare_inputs(generation_batch)

    def _compute_loss(self, model, inputs):
        self._sampled_ids = inputs["sampled_ids"]
        loss = super()._compute_loss(model, inputs)
        logps, self._last_logps, self._sampled_ids = self._last_logps, torch.empty(0), None
        if not self.model.training:
            return loss
        if "old_per_token_logps" not in inputs:
            # The first pass: π_new is still π_cur, so the KL and its gradient are 0
            inputs["old_per_token_logps"] = logps.detach()
            if self.speaker.policy.scores_as_it_trains:
                inputs["scored_logps"] = inputs["old_per_token_logps"]
            return loss
        kl = self.turn_radii.by_turn(k3_kl(inputs["old_per_token_logps"], logps) * message_mask(inputs), inputs)
        inputs["kl_by_turn"] = kl.detach()
        kl = (kl * self.turn_radii.weights.to(kl)).sum()
        # DDP averages gradients over processes, and the KL is a sum over all of them
        scale = self.accelerator.num_processes / inputs["num_messages_in_batch"].clamp(min=1)
        return loss + self.controller.coef * scale * kl if self.controller.coef > 0 else loss

    def _inner_training_loop(
        self, batch_size=None, args=None, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None
    ):
        self._prepare_for_training(self.num_updates, None, resume_from_checkpoint)

    def _prepare_for_training(self, max_steps, train_dataloader, resume_from_checkpoint):
        with loading_runs_no_code(self):
            output = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        self.engine = make_engine(self, self.name)
        self.speaker.policy.wrap(self.model_wrapped)
        return output

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None):
        load_weights(self.model if model is None else model, resume_from_checkpoint)

    def _build_accelerator_args(self, **kwargs):
        arguments = super()._build_accelerator_args(**kwargs)
        if self.lead is not self:
            arguments["deepspeed_plugin"] = None  # accelerate takes it from the first accelerator, the lead's
        return arguments

    # The update

    def update(self, batch: dict, before: Snapshot | None = None, floor_is_due: bool = False) -> UpdateReport:
        """
        Update the policy on `batch` within its trust region (eq. 10 and 11).

        Makes up to `num_iterations` passes, of one or several optimizer steps each; stops once the KL exceeds the radius;
        then measures the KL on all messages with the final weights, and backtracks until it is within the radius.

        Args:
            batch (`dict`): What [`~AgentTrainer._generate_and_score_completions`] returns: rollouts of π_cur.
            before ([`Snapshot`], *optional*): π_cur, with its optimizer if there is a radius. By default made here.
            floor_is_due (`bool`): Whether to measure the floor of the KL first, in any case in the first update.

        Raises:
            `ValueError`: If the radius is below three floors.
            `FloatingPointError`: If the loss of a pass is NaN or infinite. Whatever ends an update early reverts it or,
                without a radius, the pass.
        """
        found = torch.stack([message_mask(batch).sum(), batch["advantages"].count_nonzero()])
        num_tokens, num_advantages = self.accelerator.reduce(found, reduction="sum").tolist()
        report = UpdateReport(num_messages=int(batch["num_messages_in_batch"]), num_tokens=num_tokens)
        start = fingerprint(self.engine.weights)
        if batch["num_items_in_batch"] > 0:
            self._update(batch, report, before, floor_is_due)
        moved = differ(start, fingerprint(self.engine.weights), self.accelerator)
        report.idle = min(num_advantages, report.num_messages) > 0 and not moved
        return report

    def _update(self, batch: dict[str, Any], report: UpdateReport, before: Snapshot | None, floor_is_due: bool):
        shuffled: Any = shuffle_sequence_dict(batch)
        micro_batches: list[dict] = split_tensor_dict(shuffled, self.args.steps_per_generation or 1)
        micro_batches, monitored = split_off_monitor(micro_batches, self.args.monitor_fraction, self.accelerator)
        steps = split_into_steps(micro_batches, self.args.gradient_accumulation_steps or 1, self.accelerator)
        exact, floor_is_due = self.kl_estimator == "exact", floor_is_due or self.floors.scoring is None
        score_current(self.speaker, micro_batches, monitored, len(steps), self.radius is not None, floor_is_due)
        if self.radius is not None and floor_is_due:
            self.floors.measure(self.speaker, self.engine, [*micro_batches, *monitored], self.turn_radii, exact)
            if self.args.enforce_radius:
                self.floors.check(self.radius, self.speaker)
        report.kl_floor = self.floors.scoring
        entropy = EntropyState(self)
        if self.radius is None:
            with all_or_nothing(None, self.engine, entropy):
                self._fit(steps, report)
        else:
            before = before if before is not None else Snapshot(self.engine)
            with all_or_nothing(before, self.engine, entropy):
                self._fit_inside(self.radius, before, steps, monitored, report)
            if report.rejected:
                entropy.restore()
            self.controller.step(report.kl_proposed)
        report.sampling = report_sampling(self.speaker, [*micro_batches, *monitored], self.radius)

    def _fit_inside(self, radius: float, before: Snapshot, steps: list, monitored: list, report: UpdateReport):
        """The passes over `steps`, and the backtracking to the radius, measured on `monitored` rollouts too."""
        stopped = self._fit(steps, report)

        def measure() -> float:
            found = [self.measure_kl(part, before) for part in (sum(steps, []), monitored) if part]
            return torch.tensor(found, dtype=torch.float64).max().item()  # unlike Python's `max`, NaN if one is NaN

        known = stopped and self.kl_estimator == "k3" and not monitored  # measured where it stopped
        report.kl = report.kl_proposed = report.kl_last_pass if known else measure()
        if self.args.enforce_radius:
            backtrack(before, measure, radius, self.args.max_backtracks, report)
        if self.kl_estimator == "k3" and not report.rejected:  # if `known`, it is backtracking that has measured
            report.log_ratios = token_log_ratios([*sum(steps, []), *monitored])

    def _fit(self, steps: list[list[dict]], report: UpdateReport) -> bool:
        """The passes, each in `steps`. Returns whether they stopped early, because the KL exceeded the radius."""
        losses, stopped = list[float](), False
        radius = self.radius if self.radius is not None and self.args.enforce_radius else math.inf
        for micro_batches in steps * self.args.num_iterations:
            # A step on all rollouts yields their KL at no cost; that of one step's own rollouts decides nothing
            measured = len(steps) > 1 and report.inner_steps > 0 and radius < math.inf
            if measured:
                report.kl_last_pass = self.measure_kl(sum(steps, []), estimator="k3")
                stopped = report.kl_last_pass > radius
            entropy = EntropyState(self)
            if not stopped:
                loss, kl = self._accumulate(micro_batches)
                losses.append(loss)
                report.kl_last_pass = report.kl_last_pass if measured else kl
                stopped = len(steps) == 1 and kl - self.floors.training > radius
                if stopped and not self.speaker.policy.scores_as_it_trains:  # suggested, and decided here
                    report.kl_last_pass = self.measure_kl(sum(steps, []), estimator="k3")
                    stopped = report.kl_last_pass > radius
            if stopped:
                self.engine.discard_gradients()
                entropy.restore()
                break
            report.grad_norm = self._optimizer_step()
            report.inner_steps += 1
        report.loss = sum(losses) / len(losses)
        return stopped

    def _accumulate(self, micro_batches: list[dict]) -> tuple[float, float]:
        """One step: accumulates the gradient of eq. 10. Returns the loss, and d̂ of the weights before the step."""
        self.current_gradient_accumulation_steps = len(micro_batches)  # for TRL's `training_step` and `_compute_loss`
        device = self.accelerator.device
        kl_sum = torch.zeros(len(self.turn_radii.weights), device=device)
        counts = torch.stack([self.turn_radii.count(batch) for batch in micro_batches]).sum(dim=0)
        loss = torch.zeros((), device=device)
        for i, micro_batch in enumerate(micro_batches):
            last = i == len(micro_batches) - 1
            self.accelerator.gradient_state._set_sync_gradients(last)  # for `Accelerator.backward`
            synced = last or self.accelerator.distributed_type == DistributedType.DEEPSPEED
            with contextlib.nullcontext() if synced else self.accelerator.no_sync(self.model_wrapped):
                loss += self.training_step(self.model_wrapped, micro_batch, None)
            # Passed in the batch, since TRL's `training_step` returns only the loss
            kl_sum += micro_batch.pop("kl_by_turn", 0.0)
            if not last:
                self.lead.control = self.lead.callback_handler.on_substep_end(self.args, self.state, self.lead.control)
        totals = self.accelerator.reduce(
            torch.cat([loss.float()[None], kl_sum.float(), counts.float()]), reduction="sum"
        )
        mean_loss, kl = totals[0].item(), self.turn_radii.measure(*totals[1:].chunk(2))
        check_loss(mean_loss, self.name, self.state.global_step + 1)
        return mean_loss / self.accelerator.num_processes, kl

    def _optimizer_step(self) -> float:
        """Clip the gradient and step. Returns its norm before clipping."""
        handler, state = self.lead.callback_handler, self.state
        self.engine.clip_gradients()
        self.lead.control = handler.on_pre_optimizer_step(self.args, state, self.lead.control)
        self.engine.step()
        self.lead.control = handler.on_optimizer_step(self.args, state, self.lead.control)
        return self.engine.grad_norm

    def measure_kl(
        self, micro_batches: Sequence[dict], snapshot: Snapshot | None = None, estimator: str | None = None
    ) -> float:
        """[`mean_kl`] by `estimator`, by default the agent's; `snapshot` is π_cur, which `"exact"` needs."""
        exact = (estimator or self.kl_estimator) == "exact"
        return mean_kl(self.speaker, micro_batches, snapshot if exact else None, self.turn_radii)
