"""One member of a team in training: TRL's `GRPOTrainer`, fed with its view of the team's rollouts."""

import contextlib
import math
import random
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

from .advantages import group_advantages
from .agent import Agent
from .engines import PlainEngine, loading_runs_no_code, make_engine
from .monitor import split_off_monitor
from .plain_sampling import drop_sampling_defaults, silence_dropout
from .rendering import ChatRenderer, PlainRenderer, Renderer
from .returns import answers, weigh_rewards
from .rollout import Rollouts, union
from .rollout_metrics import log_rollouts
from .scoring import exact_token_kl, loss_mask, sequence, token_logps
from .snapshot import Snapshot
from .transcript import Message, Transcript
from .trust_region import KLController, UpdateReport, backtrack, k3_kl
from .turn_radii import TurnRadii
from .view import View, stack_views


if TYPE_CHECKING:
    from .teamtr_trainer import TeamTRTrainer


class AgentTrainer(GRPOTrainer):
    """
    A member of a team: its model, tokenizer, optimizer and generation are those of a [`~trl.GRPOTrainer`].

    The changes w.r.t. [`~trl.GRPOTrainer`]:

    - `_generate` returns this agent's view of the team's rollouts instead of generating on its own.
    - `_generate_and_score_completions` keeps the rows for the rollout (TRL hands on the prompts alone) and replaces
      the advantages by those of eq. 9.
    - `_calculate_rewards` goes to the lead, which owns the reward functions, with the ids of the final message.
    - `_get_per_token_logps_and_entropies` keeps the log-probabilities that pass through it for the KL penalty.
    - `_compute_loss` adds that penalty (eq. 10).
    - `_prepare_inputs` hands through micro-batches, since the passes over them are made by [`~AgentTrainer.update`].
    - `_inner_training_loop` prepares the model and the optimizer and leaves the loop to the lead.
    - `_prepare_for_training` then looks at the engine it got (DDP, ZeRO), which an update needs to know.
    - `_build_accelerator_args` lets all members share the lead's DeepSpeed plugin.

    Args:
        agent (`Agent`): The member. Its model is passed to [`~trl.GRPOTrainer`] with the other arguments.
        lead (`TeamTRTrainer`, *optional*): The trainer of the team; `None` for the lead itself.
        team_size (`int`): Number of agents of the team.
    """

    def __init__(self, agent: Agent, lead: "TeamTRTrainer | None", team_size: int, **kwargs):
        self.agent = agent
        self.name = agent.name
        self.lead: TeamTRTrainer = lead if lead is not None else self
        self._alone = team_size == 1
        super().__init__(**kwargs)
        if not agent.trainable:
            self.model.requires_grad_(False)
        if self.args.disable_dropout:
            silence_dropout(self.model)
        drop_sampling_defaults(self.model, self.generation_config, self.name)
        # TRL reuses a batch by counting steps; here `update` does it. With 1, TRL computes no old log-probabilities,
        # which the first pass yields for nothing, and the sampler repeats a batch only for the micro-batches.
        self.num_iterations = 1
        self.radius = agent.radius_in(self.args)
        self.controller = KLController(self.args.kl_coef, self.radius, adaptive=self.args.kl_controller == "adaptive")
        self.max_view_length = self._find_max_view_length()
        self.num_updates = 0  # length of this agent's learning-rate schedule; set by the lead
        self._renderers: dict[bool, Renderer] = {}
        self._rollouts: Rollouts | None = None
        self._last_logps: torch.Tensor | None = None
        self._kl_sum: torch.Tensor | float = 0.0  # of a pass, by own turn
        self.turn_radii = TurnRadii(self.radius)
        self.before_update: Snapshot | None = None  # the policy before the last update, as long as drafts need it
        self.engine = PlainEngine(self)

    # Speaking

    def _find_max_view_length(self) -> int:
        # Not every family has it, and some by another name, which only the attribute knows
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        limits = [length for length in (self.args.max_context_length, limit) if length is not None]
        return min(limits) if limits else sys.maxsize

    def renderer_for(self, prompt: str | list[dict]) -> Renderer:
        """How this agent reads a rollout of `prompt`."""
        chat = not isinstance(prompt, str)
        if chat not in self._renderers:
            self._renderers[chat] = (
                ChatRenderer(
                    self._tokenizer, self.name, self.agent.system_prompt, self.eos_token_ids, self.chat_template_kwargs
                )
                if chat
                else PlainRenderer(self._tokenizer, self.name, self.agent.system_prompt, self._alone)
            )
        return self._renderers[chat]

    def speak(self, contexts: list[list[int]], beginnings: list[tuple[int, ...]] | None = None) -> list[Message]:
        """
        Sample one message for each context with the present weights.

        Args:
            contexts (`list[list[int]]`): Token ids. Every process calls this together; one may bring none.
            beginnings (`list[tuple[int]]`, *optional*): For each context the ids that its message begins with.
        """
        ends = set(self.eos_token_ids)
        ids = list(beginnings) if beginnings is not None else [()] * len(contexts)
        limit = self.max_completion_length
        unfinished = [i for i, own in enumerate(ids) if len(own) < limit and not (own and own[-1] in ends)]
        if union(self.accelerator, {True} if unfinished else set()):
            self.lead.residency.use(self)
            self.generation_config.max_new_tokens = limit - min((len(ids[i]) for i in unfinished), default=0)
            # A process without a row still takes part: generation under ZeRO-3 gathers the weights
            prompts = [contexts[i] + list(ids[i]) for i in unfinished] or [[self._tokenizer.pad_token_id]]
            new, _ = self._generate_single_turn(prompts, None, {}, self.num_generations)
            if len(new) != len(prompts):
                raise RuntimeError(
                    f"Agent {self.name!r} was given {len(prompts)} contexts and wrote {len(new)} messages."
                )
            for i, continuation in zip(unfinished, new[: len(unfinished)], strict=True):
                ids[i] = (*ids[i], *continuation)[:limit]
        texts = self._tokenizer.batch_decode([list(own) for own in ids], skip_special_tokens=True) if ids else []
        return [Message(self.name, text, tuple(own), own[-1] in ends) for own, text in zip(ids, texts, strict=True)]

    def view_batch(self, rollouts: Rollouts) -> dict[str, torch.Tensor]:
        """
        This agent's views of `rollouts` as padded tensors, for scoring without rewards or advantages.

        Returns:
            `dict` with `prompt_ids`, `prompt_mask` (padded on the left), `completion_ids`, `completion_mask`,
            `tool_mask` (padded on the right), each int64 of shape `(rows, length)`, and `num_messages` `(rows,)`.
        """
        views = rollouts.views[self.name]
        for view in views:
            view.end(self._tokenizer.pad_token_id)
        batch = stack_views(views, self._tokenizer.pad_token_id)
        batch |= self._number_messages(views, batch)
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}

    def _number_messages(self, views: Sequence[View], batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Which of the agent's messages a completion's token is of, if the agent's turns have radii of their own."""
        if self.turn_radii.radii is None:
            return {}
        numbers = torch.full_like(batch["completion_ids"], -1)
        for row, view in zip(numbers, views, strict=True):
            own = view.message_numbers()
            row[: len(own)] = torch.tensor(own)
        return {"message_numbers": numbers}

    # TRL's hooks

    def _generate_and_score_completions(
        self, inputs: list[dict[str, Any]], rollouts: Rollouts | None = None
    ) -> dict[str, torch.Tensor | Any]:
        rows = [dict(row) for row in inputs]  # TRL writes the transcripts into the rows, which serve all agents
        self._rollouts = rollouts if rollouts is not None else self.lead.collect_rollouts(rows)
        self.lead.residency.use(self)
        output = super()._generate_and_score_completions(rows)
        views = self._rollouts.views[self.name]
        num_messages = torch.tensor([view.num_messages for view in views], device=self.accelerator.device)
        # Rows without a loss (`mask_truncated_completions`) have no part in the KL either
        output["num_messages"] = num_messages * (loss_mask(output).sum(dim=1) > 0)
        output |= self._number_messages(views, output)
        output["num_messages_in_batch"] = self.accelerator.gather(output["num_messages"].sum()).sum()
        output["advantages"] = self._team_advantages(output["advantages"])
        if self._rollouts.weights is not None:
            output["advantages"] *= self._rollouts.weights.to(output["advantages"])
        self._rollouts = None
        return output

    def _team_advantages(self, trl_advantages: torch.Tensor) -> torch.Tensor:
        """Eq. 9 for the rewards just computed; also put right in the log of completions."""
        args, mode = self.args, "train" if self.model.training else "eval"
        returns = weigh_rewards(self.lead.rewards_per_func, self.reward_weights)
        self._metrics[mode]["team/reward"].append(returns.nanmean().item())
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
        mode = "train" if self.model.training else "eval"
        transcripts, views = self._rollouts.transcripts, self._rollouts.views[self.name]
        own = [(sum(view.mask), view.num_messages) for view in views]
        for view in views:
            view.end(self._tokenizer.pad_token_id)
        log_rollouts(self, self._rollouts, own, mode)
        self._log_completion_extra("transcript", [str(transcript) for transcript in transcripts])
        extra_fields = {"transcripts": [transcript.as_dicts() for transcript in transcripts]}
        return (
            [view.prompt_ids for view in views],
            [view.completion_ids for view in views],
            [view.mask for view in views],
            answers(transcripts),
            None,
            extra_fields,
            None,
            None,
        )

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        final_ids = [list(t.messages[-1].ids) if t.messages else [] for t in self._rollouts.transcripts]
        rewards = super(AgentTrainer, self.lead)._calculate_rewards(inputs, prompts, completions, final_ids)
        for i, (func, name) in enumerate(zip(self.lead.reward_funcs, self.lead.reward_func_names, strict=True)):
            if isinstance(func, torch.nn.Module) and not rewards[:, i].isfinite().all():
                row = int((~rewards[:, i].isfinite()).nonzero()[0])
                raise ValueError(f"The reward model {name!r} returned {rewards[row, i].item()} for row {row}.")
        self.lead.rewards_per_func = rewards
        return rewards

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        output = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._last_logps = output[0]
        return output

    def _prepare_inputs(self, generation_batch):
        return generation_batch if self.model.training else super()._prepare_inputs(generation_batch)

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        logps, self._last_logps = self._last_logps, None
        if not self.model.training:
            return loss
        if "old_per_token_logps" not in inputs:
            # The first pass: π_new is still π_cur, the KL is 0 and so is its gradient
            inputs["old_per_token_logps"] = logps.detach()
            return loss
        kl = self.turn_radii.by_turn(k3_kl(inputs["old_per_token_logps"], logps) * loss_mask(inputs), inputs)
        self._kl_sum += kl.detach()
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
        self.engine = make_engine(self)
        return output

    def _build_accelerator_args(self, **kwargs):
        arguments = super()._build_accelerator_args(**kwargs)
        if self.lead is not self:
            arguments["deepspeed_plugin"] = None  # accelerate takes it from the first accelerator, the lead's
        return arguments

    # The update

    def update(self, batch: dict[str, torch.Tensor | Any]) -> UpdateReport:
        """
        Fit the policy to `batch` inside its trust region (eq. 10 and 11).

        Makes up to `num_iterations` passes, each one optimizer step; stops once the KL leaves the radius; then
        measures the KL on all messages with the final weights, and backtracks until it is inside.

        Args:
            batch (`dict`): What [`~AgentTrainer._generate_and_score_completions`] returns: rollouts of π_cur.

        Raises:
            `FloatingPointError`: If the loss of a pass is NaN or infinite; that pass has changed nothing.
        """
        num_messages = int(batch["num_messages_in_batch"])
        report = UpdateReport(num_messages=num_messages, num_tokens=int(batch["num_items_in_batch"]))
        if num_messages == 0:
            return report
        micro_batches = split_tensor_dict(shuffle_sequence_dict(batch), self.args.steps_per_generation)
        micro_batches, monitored = split_off_monitor(micro_batches, self.args.monitor_fraction, self.accelerator)
        for held_out in monitored:
            held_out["old_per_token_logps"] = token_logps(self, held_out)
        keep = self.lead.resampler.needs_snapshot
        snapshot = Snapshot(self.engine, self.radius is not None) if self.radius is not None or keep else None
        enforced = self.radius is not None and self.args.enforce_radius
        losses, left = [], False
        while report.inner_steps < self.args.num_iterations and not left:
            loss, kl = self._accumulate(micro_batches)
            losses.append(loss)
            left = enforced and kl > self.radius
            if not left:
                report.grad_norm = self._optimizer_step()
                report.inner_steps += 1
            else:
                self.engine.discard_gradients()
        report.loss, report.kl_last_pass = sum(losses) / len(losses), kl
        if self.radius is not None:

            def measure() -> float:
                parts = (micro_batches, monitored) if monitored else (micro_batches,)
                found = [self.measure_kl(part, snapshot) for part in parts]
                return torch.tensor(found, dtype=torch.float64).max().item()  # unlike Python's, NaN if one is

            # Where it stopped early, that pass has measured the KL already
            known = left and self.args.kl_estimator == "k3" and not monitored
            report.kl = report.kl_proposed = kl if known else measure()
            if enforced:
                backtrack(snapshot, measure, self.radius, self.args.max_backtracks, report)
            self.controller.step(report.kl_proposed)
        self.before_update = snapshot if keep else None
        return report

    def _accumulate(self, micro_batches: list[dict]) -> tuple[float, float]:
        """One pass: accumulates the gradient of eq. 10. Returns the loss, and d̂ of the weights that it was taken at."""
        self.current_gradient_accumulation_steps = len(micro_batches)
        self._kl_sum = torch.zeros(len(self.turn_radii.weights), device=self.accelerator.device)
        counts = torch.stack([self.turn_radii.count(batch) for batch in micro_batches]).sum(dim=0)
        loss = torch.zeros((), device=self.accelerator.device)
        for i, micro_batch in enumerate(micro_batches):
            last = i == len(micro_batches) - 1
            self.accelerator.gradient_state._set_sync_gradients(last)
            synced = last or self.accelerator.distributed_type == DistributedType.DEEPSPEED
            with contextlib.nullcontext() if synced else self.accelerator.no_sync(self.model_wrapped):
                loss += self.training_step(self.model_wrapped, micro_batch, None)
        totals = torch.cat([loss.float()[None], self._kl_sum.float(), counts.float()])
        totals = self.accelerator.reduce(totals, reduction="sum")
        loss, kl = totals[0].item(), self.turn_radii.measure(*totals[1:].chunk(2))
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The loss of agent {self.name!r} is {loss} at update {self.state.global_step + 1}; its pass was not "
                "applied. A smaller learning rate or `max_grad_norm` usually helps."
            )
        return loss / self.accelerator.num_processes, kl

    def _optimizer_step(self) -> float:
        """Clip and step; returns the norm of the gradient before clipping."""
        handler, state = self.lead.callback_handler, self.state
        self.engine.clip_gradients()
        self.lead.control = handler.on_pre_optimizer_step(self.args, state, self.lead.control)
        self.engine.step()
        self.lead.control = handler.on_optimizer_step(self.args, state, self.lead.control)
        return self.engine.grad_norm

    @torch.no_grad()
    def measure_kl(self, micro_batches: list[dict], snapshot: Snapshot, estimator: str | None = None) -> float:
        """
        d̂ of the present weights against π_cur on the messages of `micro_batches`, over all processes.

        Args:
            micro_batches (`list[dict]`): Rollouts of π_cur. For `"k3"` they hold its `old_per_token_logps`.
            snapshot (`Snapshot`): π_cur, for `"exact"`.
            estimator (`str`, *optional*): `"k3"` or `"exact"`; defaults to `args.kl_estimator`.

        Returns:
            `float`: Nats per message.
        """
        exact = (estimator or self.args.kl_estimator) == "exact"
        total = torch.zeros(2, len(self.turn_radii.weights), device=self.accelerator.device)
        with disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            for inputs in micro_batches:
                kl = exact_token_kl(self, inputs, snapshot) if exact else self._k3_kl(inputs)
                by_turn = self.turn_radii.by_turn(kl * loss_mask(inputs), inputs)
                total += torch.stack([by_turn, self.turn_radii.count(inputs)])
        return self.turn_radii.measure(*self.accelerator.reduce(total, reduction="sum"))

    def _k3_kl(self, inputs: dict) -> torch.Tensor:
        logps, _, _ = self._get_per_token_logps_and_entropies(self.model_wrapped, *sequence(inputs))
        return k3_kl(inputs["old_per_token_logps"], logps)

    def new_transcript(self, row: dict[str, Any], said: Sequence[Message] = ()) -> Transcript:
        """A transcript for a row of the dataset that begins with the messages `said`."""
        private = {name: text for name, text in (row.get("agent_prompts") or {}).items() if text}
        names = self.lead.team_names
        return Transcript(row["prompt"], names, private, seed=random.getrandbits(32), messages=list(said))
