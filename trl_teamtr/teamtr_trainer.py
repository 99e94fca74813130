"""TeamTR: sequential trust-region updates of a team, each on fresh rollouts (Algorithm 1)."""

import math
import os
import textwrap
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from peft import PeftConfig, PeftModel
from torch import nn
from transformers import (
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainerCallback,
)
from transformers.trainer_utils import EvalLoopOutput, TrainOutput
from trl.trainer.grpo_trainer import EnvironmentFactory, RewardFunc, RolloutFunc

from . import checkpoint, hub, preflight, run_state
from .agent import Agent
from .agent_trainer import AgentTrainer
from .diagnostics import DiagnosticsCallback
from .eval_metrics import add_history, name_by_dataset
from .model_card import describe_team
from .preemption import PreemptionCallback
from .preparing import prepare_members
from .probes import make_probes
from .resampling import Resampler
from .residency import Residency
from .rewards import check_reward_funcs, check_trust
from .rollout import Rollouts, collect_rollouts, make_rules
from .router import Router
from .sampling_checks import check_sampling, choose_resampling
from .stages import count_stages, ends_epoch, evaluating, order_agents, stage_rows
from .team import check_same_team, default_args, grpo_arguments, load_models, resolve_team
from .teamtr_config import TeamTRConfig
from .transcript import Message, Transcript
from .trust_region import UpdateReport
from .turn_radii import make_turn_radii
from .wandb_fallback import go_offline_without_server


class TeamTRTrainer(AgentTrainer):
    """
    Trainer for TeamTR, from the paper [Trust-Region Fine-Tuning for Multi-Agent LLM
    Coordination](https://huggingface.co/papers/2605.15207).

    A drop-in for [`~trl.GRPOTrainer`]: same arguments in the same order, with a team in place of the model. Each stage
    updates the trainable agents one after another; before each update the team, as updated so far, writes fresh
    rollouts, and the update stays inside a KL trust region.

    Every agent is a [`~trl.GRPOTrainer`] of its own. This trainer is the first trainable one, the lead: it also owns
    the datasets, the rewards, the callbacks and the logs, and runs the loop. The changes w.r.t. [`~trl.GRPOTrainer`]
    are those of [`AgentTrainer`], and:

    - `_inner_training_loop` runs the stages of Algorithm 1 instead of epochs over batches.
    - `train` first looks whether the checkpoint to resume from is whole.
    - `_set_signature_columns_if_needed` keeps the private prompts.
    - `evaluate` puts all agents into evaluation mode; `evaluation_loop` keeps the metrics of several datasets apart.
    - `create_model_card` describes the team.
    - `_determine_best_metric` lets a run that is preempted save with `save_strategy="best"`.
    - `_push_from_checkpoint` pushes no pickled arguments, which may hold a token.
    - `save_model`, `_save_checkpoint`, `_load_from_checkpoint` and `_load_best_model` save and load the whole team.

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
            As in [`~trl.GRPOTrainer`]. `completions` holds the team's answer, which is the last message of each
            rollout; the argument `transcripts` holds all messages, as
            `[{"role": "assistant", "name": agent, "content": text}, ...]`.
        args ([`TeamTRConfig`], *optional*):
            Configuration. If `None`, a default one is used.
        train_dataset, eval_dataset, reward_processing_classes, callbacks, quantization_config:
            As in [`~trl.GRPOTrainer`]. A column `agent_prompts`, a dict from agent name to text, holds what only the
            named agent reads.
        processing_class ([`~transformers.PreTrainedTokenizerBase`], *optional*):
            Tokenizer of the agents that have none of their own.
        optimizers (`tuple`, *optional*):
            As in [`~trl.GRPOTrainer`], for a team of one trainable agent only.
        peft_config ([`~peft.PeftConfig`], *optional*):
            Adapter of the trainable agents that have none of their own.
        tools, rollout_func, environment_factory:
            Not supported yet: refused unless `None`.
        router (`Callable[[Transcript], str | None]`, *optional*):
            Who speaks next; `None` ends the rollout. Defaults to `args.router`.
        stop_condition (`Callable[[Transcript], bool]`, *optional*):
            Asked after each message; a rollout ends once it holds.
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
        preflight.refuse_unsupported(tools=tools, rollout_func=rollout_func, environment_factory=environment_factory)
        agents = resolve_team(model, args, peft_config)
        names = tuple(agent.name for agent in agents)
        trainable = [agent for agent in agents if agent.trainable]
        preflight.check_optimizers(optimizers, len(trainable))
        check_same_team(args.output_dir, agents)
        splits = preflight.name_splits(train_dataset, eval_dataset)
        for split, dataset in splits.items():
            preflight.check_columns(dataset, names, split)

        self.team_names = names
        self.rules = make_rules(args, names, router, stop_condition)
        preflight.check_router(self.rules, [agent.name for agent in trainable], names, train_dataset, args)
        check_sampling(args, agents)
        load_models(agents, args, quantization_config, processing_class)

        lead, reward_funcs = trainable[0], check_reward_funcs(reward_funcs, args.reward_timeout)
        check_trust(reward_funcs, reward_processing_classes, lead, args)
        common = {"train_dataset": train_dataset, "quantization_config": quantization_config, "team_size": len(agents)}
        super().__init__(
            agent=lead,
            lead=None,
            reward_funcs=reward_funcs,
            eval_dataset=eval_dataset,
            reward_processing_classes=reward_processing_classes,
            callbacks=callbacks,
            optimizers=optimizers,
            **common,
            **grpo_arguments(lead, args, processing_class, lead=True, num_trained=len(trainable)),
        )
        self._add_peers(agents, args, processing_class, common)
        preflight.check_members(self.members, splits, self.rules)
        probes = make_probes(self, eval_dataset)
        if probes:
            self.add_callback(DiagnosticsCallback(self, probes))

    def _add_peers(self, agents: list[Agent], args: TeamTRConfig, processing_class, common: dict[str, Any]):
        """The trainers of the other agents, and what the lead keeps for all."""
        num_trained = sum(agent.trainable for agent in agents)
        # The peers get the lead's reward models, loaded, since TRL logs each batch's rewards from the member's own list
        common |= {"reward_funcs": list(self.reward_funcs)}
        common |= {"reward_processing_classes": list(self.reward_processing_classes)}
        self.members: list[AgentTrainer] = []
        for agent in agents:
            arguments = grpo_arguments(agent, args, processing_class, lead=False, num_trained=num_trained)
            self.members.append(self if agent is self.agent else AgentTrainer(agent, lead=self, **common, **arguments))
        self.trained_members = [member for member in self.members if member.agent.trainable]
        self.peers = [member for member in self.members if member is not self]
        # The update in progress, and what the last one did
        self.active_agent: AgentTrainer = self
        self.active_rows: list[dict[str, Any]] = []
        self.active_rollouts: Rollouts | None = None
        self.last_report = UpdateReport()
        for member in self.members:
            member.turn_radii = make_turn_radii(member)
        self._share_records()
        self.residency = Residency(self.members, args.offload_idle_agents)
        self.resampler = Resampler(self, choose_resampling(args, agents))
        self.preemption = PreemptionCallback(self.accelerator)
        self.add_callback(self.preemption)
        go_offline_without_server(self.callback_handler)

    def _share_records(self):
        """One set of metrics, logs and counters for the team: the lead's."""
        for peer in self.peers:
            peer.state, peer.control = self.state, self.control
            peer._metrics, peer._logs = self._metrics, self._logs
            peer._pending_metrics, peer._pending_extra_logs = self._pending_metrics, self._pending_extra_logs

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if "agent_prompts" not in self._signature_columns:
            self._signature_columns.append("agent_prompts")

    # Algorithm 1

    def _run_stage(self, rows: list[dict[str, Any]], order: list[AgentTrainer], **log_kwargs):
        """
        One stage: updates the agents one after another, each on fresh rollouts of the team as updated so far.

        Args:
            rows (`list[dict]`): The stage's prompts B, each repeated `num_generations` times.
            order (`list[AgentTrainer]`): The order σ; after a resume in mid-stage, what is left of it.
            log_kwargs: For `Trainer._maybe_log_save_evaluate`.
        """
        for agent in order:
            self._begin_update(agent)
            # π̂^{i-1}: every agent speaks with its present weights, those updated in this stage included
            self.active_rows, self.active_rollouts = rows, self.resampler.rollouts(rows)
            # Returns, and the group-normalised advantages of eq. 9, on this agent's view of the rollouts
            batch = agent._generate_and_score_completions(rows, self.active_rollouts)
            # Clipped surrogate and KL penalty, within the radius (eq. 10 and 11): π̂^i
            report = agent.update(batch)
            self.resampler.agent_was_updated(agent, report)
            self._end_update(agent, report, **log_kwargs)
            if self.control.should_training_stop:
                break

    def collect_rollouts(self, rows: list[dict[str, Any]], said: list[list[Message]] | None = None) -> Rollouts:
        """
        Let the team, with its present weights, write one rollout for each of `rows`.

        Args:
            rows (`list[dict]`): Rows of the dataset: `prompt`, and `agent_prompts` if there are private prompts.
            said (`list[list[Message]]`, *optional*): For each row the messages that its rollout begins with.
        """
        said = said if said is not None else [()] * len(rows)
        transcripts = [self.new_transcript(*pair) for pair in zip(rows, said, strict=True)]
        return collect_rollouts(transcripts, self.members, self.rules, self.accelerator)

    def train(self, resume_from_checkpoint: str | bool | None = None, trial=None, ignore_keys_for_eval=None):
        checkpoint_folder = checkpoint.prepare_resume(self, resume_from_checkpoint)
        try:
            return super().train(checkpoint_folder, trial, ignore_keys_for_eval)
        finally:
            self.preemption.restore()

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
        prepare_members(self, max_steps, dataloader, resume_from_checkpoint)

        start_time = run_state.begin(self, resume_from_checkpoint)
        self._updates_per_epoch = stages_per_epoch and stages_per_epoch * num_agents
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        if self.args.eval_on_start:
            self._evaluate(trial, ignore_keys_for_eval, skip_scheduler=True)

        stage, position = divmod(self.state.global_step, num_agents)
        batches, rows = stage_rows(dataloader, self.args.steps_per_generation), None
        for _ in range(stage + (position > 0)):
            rows = next(batches)
        if resume_from_checkpoint is not None:
            self._load_rng_state(resume_from_checkpoint)
            self.resampler.load(resume_from_checkpoint)
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
        return self._finalize_training(trial, max_steps * self.args.generation_batch_size, start_time)

    def _begin_update(self, agent: AgentTrainer):
        self.model.train()  # GRPOTrainer tells training from evaluation by the mode of its model
        agent.model.train()
        self.residency.train(agent)
        handler = self.callback_handler
        handler.model, handler.optimizer, handler.lr_scheduler = agent.model, agent.optimizer, agent.lr_scheduler
        self.active_agent = agent
        self.control = handler.on_step_begin(self.args, self.state, self.control)

    def _end_update(self, agent: AgentTrainer, report: UpdateReport, trial, ignore_keys_for_eval, start_time):
        learning_rate, self.last_report = agent._get_learning_rate(), report
        for key, value in report.as_metrics(agent.name, agent.radius, agent.controller.coef).items():
            self._metrics["train"][key].append(value)
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

    # Evaluation

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs) -> EvalLoopOutput:
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        add_history(self._metrics["eval"], metric_key_prefix, self.state)
        name_by_dataset(self._metrics["eval"], metric_key_prefix)
        return output

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        batch_size = self.args.per_device_eval_batch_size * self.accelerator.num_processes
        preflight.check_eval_batch(batch_size, self.num_generations_eval)
        preflight.check_eval_engine(self)
        if isinstance(eval_dataset, Dataset | IterableDataset):
            preflight.check_columns(eval_dataset, self.team_names, metric_key_prefix)
        with evaluating([member.model for member in self.members]):
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    # Saving and loading

    def _determine_best_metric(self, *args, **kwargs) -> bool:
        # With `save_strategy="best"` this decides whether to save
        return super()._determine_best_metric(*args, **kwargs) or self.preemption.stopped_at is not None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False):
        """
        Save the team: `team.json`, and one directory per agent that `from_pretrained` loads.

        Args:
            output_dir (`str`, *optional*): Where to; defaults to `args.output_dir`.
        """
        output_dir = output_dir if output_dir is not None else self.args.output_dir
        for member in self.members:
            super(AgentTrainer, member).save_model(os.path.join(output_dir, member.name), _internal_call=True)
        if self.args.should_save:
            checkpoint.write_team_files(output_dir, [member.agent for member in self.members], self.args)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def create_model_card(self, *args, **kwargs):
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero():
            describe_team(os.path.join(self.args.output_dir, "README.md"), self.members, self.hub_model_id)

    def _save_checkpoint(self, model, trial):
        checkpoint.save(self, self._get_output_dir(trial))

    def _push_from_checkpoint(self, checkpoint_folder: str):
        hub.push(self, checkpoint_folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None):
        # From `train`, of the lead, with the folder of the team
        super()._load_from_checkpoint(os.path.join(resume_from_checkpoint, self.name), model)

    def _load_best_model(self):
        checkpoint.load_best(self)
