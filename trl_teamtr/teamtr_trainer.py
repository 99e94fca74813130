"""TeamTR: sequential trust-region updates of a team, each on fresh rollouts (Algorithm 1)."""

import math
import os
import textwrap
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from peft import PeftConfig, PeftModel
from transformers import (
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainerCallback,
)
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.trainer_utils import TrainOutput
from trl.trainer.grpo_trainer import EnvironmentFactory, RewardFunc, RolloutFunc

from .agent_trainer import AgentTrainer
from .agents.agent import Agent
from .agents.equipping import resolve_equipped
from .agents.member_args import grpo_arguments
from .agents.models import load_models
from .agents.resolving import default_args
from .agents.settings import SpeakingSettings
from .agents.team_file import check_same_team
from .checks import preflight
from .checks.sampling_checks import check_branching, check_sampling
from .checks.thoughts import check_thoughts
from .conversation.router import Router
from .conversation.rules import TurnTaking, make_rules
from .conversation.transcript import Transcript
from .diagnostics.probes import add_diagnostics
from .diagnostics.watched import ActiveUpdate
from .lead_trainer import LeadTrainer
from .policy.making import load_members
from .policy.remote import RemoteMemberError
from .reports.agent_metrics import agent_metrics, count_values
from .reports.run_report import try_report
from .returns.environment_rewards import environment_rewards, with_weights
from .returns.rewards import check_reward_funcs, check_trust
from .rollouts.rollouts import Rollouts
from .rollouts.values import MessageValue, value_of
from .runs import checkpoint, run_state
from .runs.member_swap import check_between_stages, swap_in_checkpoint
from .runs.random_states import kept_if_it_fails
from .runs.stage_state import load_stage
from .runs.stages import count_stages, ends_epoch, order_agents, stage_rows
from .teamtr_config import TeamTRConfig
from .trust_region.snapshot import Snapshot
from .trust_region.update import UpdateReport


class TeamTRTrainer(LeadTrainer):
    """
    Trainer for TeamTR, from the paper [Trust-Region Fine-Tuning for Multi-Agent LLM
    Coordination](https://huggingface.co/papers/2605.15207).

    A drop-in for [`~trl.GRPOTrainer`]: same arguments in the same order, with a team in place of the model. Each stage
    updates the trainable agents one after another; before each update the team, as updated so far, generates fresh
    rollouts, and the update is kept within a KL trust region.

    Every agent is a [`~trl.GRPOTrainer`] of its own. This trainer is the first trainable one, the lead: it also owns
    the datasets, the rewards, the callbacks and the logs, and runs the loop. The changes w.r.t. [`~trl.GRPOTrainer`]
    are those of [`AgentTrainer`] and [`LeadTrainer`], and:

    - `_inner_training_loop` runs the stages of Algorithm 1 instead of epochs over batches.
    - `train` first checks that the checkpoint to resume from is whole, raises `KeyboardInterrupt` after Ctrl-C, once the
      update has ended and the run is saved, and saves it too where a remote member does not answer.

    Example:

    ```python
    >>> from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer
    >>> from trl.rewards import accuracy_reward
    >>> from datasets import load_dataset

    >>> trainer = TeamTRTrainer(
    ...     model=[Agent("planner", "Qwen/Qwen3-1.7B"), Agent("solver", "Qwen/Qwen3-8B")],
    ...     reward_funcs=accuracy_reward,
    ...     args=TeamTRConfig(output_dir="run", num_stages=40, trust_region_radius=0.01),
    ...     train_dataset=load_dataset("trl-lib/DeepMath-103K", split="train"),
    ... )
    >>> trainer.train()
    ```

    Args:
        model (`list[Agent]` or `str` or [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The team: a list of [`Agent`]; the directory of a saved team; or what [`~trl.GRPOTrainer`] takes, for a
            team of one, or of `args.num_agents` agents of the same kind.
        reward_funcs (`RewardFunc` or `list[RewardFunc]`):
            As in [`~trl.GRPOTrainer`]. `completions` contains the team's answer, which is the last message of each
            rollout; the argument `transcripts` contains all messages, as
            `[{"role": "assistant", "name": agent, "content": text}, ...]`.
        args ([`TeamTRConfig`], *optional*):
            Configuration. If `None`, a default one is used.
        train_dataset, eval_dataset, reward_processing_classes, callbacks, quantization_config:
            As in [`~trl.GRPOTrainer`]. A column `agent_prompts`, a dict from agent name to text, contains private
            prompts, which only the named agent reads.
        processing_class ([`~transformers.PreTrainedTokenizerBase`], *optional*):
            Tokenizer of the agents that have none of their own.
        optimizers (`tuple`, *optional*):
            As in [`~trl.GRPOTrainer`], for a team of one trainable agent only.
        peft_config ([`~peft.PeftConfig`], *optional*):
            Adapter of the trainable agents that have none of their own.
        tools (`list[Callable]`, *optional*):
            Functions that agents without `tools` of their own may call, as in [`~trl.GRPOTrainer`].
        rollout_func:
            Not supported: must be `None`.
        environment_factory (`Callable`, *optional*):
            As in [`~trl.GRPOTrainer`]; each rollout has one environment, on which the whole team acts.
        router (`Callable[[Transcript], str | None]`, *optional*):
            Returns the name of the next speaker; `None` ends the rollout. Defaults to `args.router`.
        stop_condition (`Callable[[Transcript], bool]`, *optional*):
            Called after each message; the rollout ends once it returns `True`.
    """

    _tag_names = ["trl", "teamtr"]
    _name = "TeamTR"
    _paper = {
        "title": "TeamTR: Trust-Region Fine-Tuning for Multi-Agent LLM Coordination",
        "id": "2605.15207",
        # docstyle-ignore
        "citation": textwrap.dedent("""\
            @inproceedings{teamtr2026,
                title        = {{TeamTR: Trust-Region Fine-Tuning for Multi-Agent LLM Coordination}},
                year         = 2026,
                booktitle    = {International Conference on Machine Learning},
                eprint       = {arXiv:2605.15207},
            }"""),
    }

    def __init__(
        self,
        model: "list[Agent] | str | PreTrainedModel | PeftModel",
        reward_funcs: RewardFunc | list[RewardFunc] | None = None,
        args: TeamTRConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | IterableDataset | dict[str, Dataset | IterableDataset] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        reward_processing_classes: PreTrainedTokenizerBase | list[PreTrainedTokenizerBase] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        quantization_config: "BitsAndBytesConfig | None" = None,
        peft_config: "PeftConfig | None" = None,
        tools: list[Callable] | None = None,
        rollout_func: RolloutFunc | None = None,
        environment_factory: EnvironmentFactory | dict[str, EnvironmentFactory] | None = None,
        router: Router | None = None,
        stop_condition: Callable[[Transcript], bool] | None = None,
    ):
        args = default_args(model) if args is None else args
        if not isinstance(args, TeamTRConfig):
            raise TypeError(f"`args` must be a `TeamTRConfig`, got {type(args).__name__}. It takes the same fields.")
        preflight.refuse_unsupported(rollout_func=rollout_func)
        agents, environments, code = resolve_equipped(
            model, args, peft_config, tools, environment_factory, router=router, stop_condition=stop_condition
        )
        names, trainable = [agent.name for agent in agents], [agent for agent in agents if agent.trainable]
        preflight.check_optimizers(optimizers, len(trainable))
        check_same_team(str(args.output_dir), agents)
        splits = preflight.name_splits(train_dataset, eval_dataset)
        for split, dataset in splits.items():
            preflight.check_columns(dataset, names, split)
        rules = make_rules(TurnTaking.of(args), names, **code)
        preflight.check_router(rules, [agent.name for agent in trainable], names, train_dataset, args)
        check_sampling(args, agents, environments)
        preflight.check_vllm(args)
        load_models(agents, SpeakingSettings.of(args, quantization_config), processing_class)
        reward_funcs = [*check_reward_funcs(reward_funcs, args.reward_timeout), *environment_rewards(environments)]
        lead, args = trainable[0], with_weights(args, environments)
        check_trust(reward_funcs, reward_processing_classes, lead, args)
        common: dict[str, Any] = {"train_dataset": train_dataset, "quantization_config": quantization_config}
        common |= {"team_size": len(agents), "environments": environments}
        super().__init__(
            agent=lead,
            lead=self,
            reward_funcs=reward_funcs,
            eval_dataset=eval_dataset,
            reward_processing_classes=reward_processing_classes,
            callbacks=callbacks,
            optimizers=optimizers,
            **common,
            **grpo_arguments(lead, args, processing_class, lead=True, num_trained=len(trainable)),
        )
        self._add_peers(agents, args, processing_class, common)
        self.team = self._make_team(agents, rules, args, splits["train"], environments)
        self._share_equipment(args, agents)
        preflight.check_team(self.team, splits)
        check_thoughts(self.team.speakers, self.reward_func_names)
        add_diagnostics(self, eval_dataset)

    # Algorithm 1

    def _run_stage(self, rows: list[dict[str, Any]], order: list[AgentTrainer], **log_kwargs):
        """
        One stage: updates the agents one after another, each on fresh rollouts of the team as updated so far.

        Args:
            rows (`list[dict]`): The stage's prompts B, each repeated `num_generations` times.
            order (`list[AgentTrainer]`): The order σ; after a resume in mid-stage, the rest of it.
            log_kwargs: For `Trainer._maybe_log_save_evaluate`.
        """
        for agent in order:
            self._begin_update(agent, rows)
            # π̂^{i-1}: every agent generates with its current weights, those updated in this stage included
            with self.times.measure("rollouts"), kept_if_it_fails(RemoteMemberError, self.args.device):
                trunk_rows = rows if self.branches is None else self.branches.trunk_rows(rows)
                rollouts = self.resampler.rollouts(trunk_rows)
                if self.branches is not None:
                    rollouts = self.branches.grow(rollouts, agent.name)
            self.team.rest()
            self.log_metric(f"agent/{agent.name}/silent", float(self.silence.look(agent.speaker, rollouts)))
            # Returns, and the group-normalised advantages of eq. 9, on this agent's view of the rollouts
            with self.times.measure("scoring"):
                batch = agent._generate_and_score_completions(rows, rollouts)
            ratios = self._watch_tokens(agent, batch)
            # Clipped surrogate and KL penalty, within the radius (eq. 10 and 11): π̂^i
            with self.times.measure("update"), self.residency.training(agent):
                before = Snapshot(agent.engine, agent.radius is not None) if self.resampler.needs_snapshot else None
                report = agent.update(batch, before, self._floor_is_due())
            self._keep_transcripts(agent, rollouts, batch["advantages"], ratios.after(report))
            self.resampler.agent_was_updated(agent.speaker, report, before)
            self._end_update(agent, report, **log_kwargs)
            if self.control.should_training_stop:
                break

    def value_of(self, row: dict[str, Any], rollouts: Rollouts, turn: int, num_rollouts: int = 32) -> MessageValue:
        """
        What one message of a rollout is worth to the team as it is: the mean return of rollouts that go on from it, and of those
        in which its author speaks anew. What is random besides the policies, such as a random router, is as in the rollout.

        Args:
            row (`dict`): The row of the dataset that it is a rollout of.
            rollouts ([`Rollouts`]): What `trainer.team.collect([row])` has returned. All processes call this together.
            turn (`int`): Which of its messages, from 0.
            num_rollouts (`int`, *optional*, defaults to `32`): Number of rollouts with the message, and of those with others.

        Raises:
            `ValueError`: If there is no such message, or the state of the environments at it cannot be had again.
        """
        check_branching(self.team.settings.environments, "`value_of`")

        def score(transcripts: list[Transcript]) -> torch.Tensor:
            returns = self.compute_returns([row] * len(transcripts), transcripts)  # of all processes
            return returns[self.accelerator.process_index * len(transcripts) :][: len(transcripts)]

        return value_of(self.team.turn_loop, rollouts, turn, score, num_rollouts)

    def _floor_is_due(self) -> bool:
        stage = self.state.global_step // len(self.trained_members)
        return stage % self.args.floor_every == 0

    def train(self, resume_from_checkpoint: str | bool | None = None, trial=None, ignore_keys_for_eval=None):
        agents = [speaker.agent for speaker in self.team.speakers]
        checkpoint_folder = checkpoint.prepare_resume(self, agents, resume_from_checkpoint)
        self._fix_template_date()
        try:
            output = super().train(checkpoint_folder, trial, ignore_keys_for_eval)
        except RemoteMemberError:  # raised by all processes, before the next update or after the last one
            self._save_unless_saved(trial)
            raise
        finally:
            self.preemption.restore()
            self.team.close()
            if self.args.report and self.is_world_process_zero() and self.state.log_history:
                try_report(self._output_dir, self.team.describe(), self.args.to_dict())
        self.preemption.raise_if_interrupted()
        return output

    def replace_agent(self, agent: Agent, aligned: bool | None = None) -> str:
        """
        Between two stages of a run, let `agent` take the place of the member of its name: save a checkpoint of the run, in which it
        has that place. All processes call this together.

        The run goes on by another trainer of the team in the checkpoint:
        `TeamTRTrainer(path, ..., args).train(resume_from_checkpoint=path)`. The optimizer, β, the schedule and the floors of the new
        member start anew, the others keep theirs; the certificate and the occupancy are measured anew.

        Args:
            agent ([`Agent`]): The new member, trained or frozen as the one before it. [`~trl_teamtr.replacement.replace_member`]
                aligns it, on a saved team.
            aligned (`bool`, *optional*): Whether it has been aligned, for the history.

        Returns:
            `str`: The checkpoint.

        Raises:
            `ValueError`: If there is no such member, there are no updates yet, or a stage is under way.
            `NotImplementedError`: Under ZeRO-3.
        """
        if agent.name not in self.team.names:
            raise ValueError(f"The team has no member {agent.name!r}. Its members are {', '.join(self.team.names)}.")
        step = self.state.global_step
        check_between_stages(step, len(self.trained_members), "The run")
        if self.args.save_only_model:
            raise ValueError("With `save_only_model=True` the others' optimizers would be lost. Leave it out.")
        if is_deepspeed_zero3_enabled():
            raise NotImplementedError(
                "Under ZeRO-3 the new member would be partitioned as it is loaded. Replace it in a checkpoint of the run, in one process: "
                "`trl-teamtr replace <checkpoint> --member ... --model ... --output ...`."
            )
        (loaded,) = load_members([agent], SpeakingSettings.of(self.args))
        self._save_checkpoint(self.model, None)
        path = os.path.join(self._output_dir, f"checkpoint-{step}")
        swap_in_checkpoint(path, path, loaded, self.accelerator, aligned)
        return path

    def _inner_training_loop(
        self, batch_size=None, args=None, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None
    ) -> TrainOutput:
        self.accelerator.free_memory()
        dataloader = self.get_train_dataloader()
        num_agents = len(self.trained_members)
        stages_per_epoch, max_steps = count_stages(dataloader, self.args, num_agents)
        epochs = math.ceil(max_steps / (stages_per_epoch * num_agents)) if stages_per_epoch else 1
        self._init_training_state(
            max_steps, (stages_per_epoch or max_steps) * num_agents, epochs, resume_from_checkpoint, trial
        )
        self._share_records()
        self._prepare_members(max_steps, dataloader, resume_from_checkpoint)

        start_time = run_state.begin(self, resume_from_checkpoint)
        self._updates_per_epoch = stages_per_epoch and stages_per_epoch * num_agents
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        if self.args.eval_on_start:
            self._evaluate(trial, ignore_keys_for_eval, skip_scheduler=True)

        stage, position = divmod(self.state.global_step, num_agents)
        batches, rows = stage_rows(dataloader, self.args.steps_per_generation or 1), list[dict[str, Any]]()
        for _ in range(stage + (position > 0)):
            rows = next(batches)
        if resume_from_checkpoint is not None:
            self._load_rng_state(resume_from_checkpoint)
            self.resampler.stage = load_stage(
                resume_from_checkpoint, self.team.turn_loop, position, self._restore_snapshot
            )
        first_stage = stage
        while self.state.global_step < max_steps and not self.control.should_training_stop:
            if stage == first_stage or (stages_per_epoch and stage % stages_per_epoch == 0):
                self.control = self.callback_handler.on_epoch_begin(self.args, self.state, self.control)
            if position == 0:
                rows = next(batches)
                self.resampler.start_stage()
            order = order_agents(self.trained_members, self.args.update_order, self.args.seed, stage)
            self._run_stage(
                rows,
                order[position:][: max_steps - self.state.global_step],
                trial=trial,
                ignore_keys_for_eval=ignore_keys_for_eval,
                start_time=start_time,
            )
            stage, position = stage + 1, 0
        return self._finalize_training(trial, max_steps * (self.args.generation_batch_size or 1), start_time)

    def _begin_update(self, agent: AgentTrainer, rows: list[dict[str, Any]]):
        self.model.train()  # GRPOTrainer distinguishes training from evaluation by its model's mode
        agent.model.train()
        self.residency.use(agent)
        handler = self.callback_handler  # `CallbackHandler` passes these on to callbacks from its attributes
        handler.model, handler.optimizer, handler.lr_scheduler = agent.model, agent.optimizer, agent.lr_scheduler
        self.active = ActiveUpdate(agent, rows, logged=count_values(self._metrics["train"]))
        self.control = handler.on_step_begin(self.args, self.state, self.control)

    def _end_update(self, agent: AgentTrainer, report: UpdateReport, trial, ignore_keys_for_eval, start_time):
        learning_rate, self.active.report = agent._get_learning_rate(), report
        for key, value in report.as_metrics(agent.name, agent.radius, agent.controller.coef).items():
            self.log_metric(key, value)
        own = agent_metrics(self._metrics["train"], self.active.logged, report, learning_rate)
        for key, value in own.items():
            self.log_metric(f"agent/{agent.name}/{key}", value)
        agent.lr_scheduler.step()
        self._tr_loss += report.loss
        self.state.global_step += 1
        if self._updates_per_epoch:
            self.state.epoch = self.state.global_step / self._updates_per_epoch
        self.control = self.callback_handler.on_step_end(self.args, self.state, self.control)
        if ends_epoch(self.state.global_step, self.state.max_steps, self._updates_per_epoch):
            self.control = self.callback_handler.on_epoch_end(self.args, self.state, self.control)
        self._maybe_log_save_evaluate(
            self._tr_loss,
            report.grad_norm,
            self.model_wrapped,
            trial,
            self.state.epoch,
            ignore_keys_for_eval,
            start_time,
            learning_rate=learning_rate,
        )
        dtype = str(agent.engine.weights[0].dtype).removeprefix("torch.")
        self.idleness.look(agent.name, report, agent.radius, learning_rate, dtype)
