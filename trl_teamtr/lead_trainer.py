"""The lead of a team, its first trainable member, which evaluates, saves and loads for all members."""

import dataclasses
import math
import os
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader
from transformers.integrations.deepspeed import deepspeed_load_checkpoint
from transformers.trainer_utils import EvalLoopOutput

from .agent_trainer import AgentTrainer
from .agents.agent import Agent
from .agents.agent_folders import AgentPlace
from .agents.member_args import grpo_arguments
from .agents.models import check_trainable_weights
from .agents.settings import SpeakingSettings
from .agents.team_file import folder_of, own_folder, write_team_files
from .checks import preflight
from .checks.idle import IdleWatch
from .checks.padding import check_padding
from .checks.router_loss import check_router_loss
from .checks.sampling_checks import choose_resampling
from .checks.silence import SilenceWatch
from .conversation.rules import RolloutRules, TurnTaking
from .conversation.template_date import agree_on_date
from .conversation.transcript import Transcript
from .diagnostics.watched import ActiveUpdate
from .policy.evaluating import evaluating
from .policy.generation import make_fleet
from .policy.participant import Participant
from .policy.positions import count_positions_from_mask
from .policy.remote import make_remote_speaker
from .policy.residency import Residency
from .reports.eval_metrics import add_history, add_interval, add_returns, name_by_dataset
from .reports.log_file import LogFileCallback
from .reports.model_card import describe_team
from .reports.phase_times import PhaseTimes
from .reports.terminal import show_in_terminal
from .reports.token_ratios import TokenRatios, describe_tokens
from .reports.trackers import adapt_trackers
from .reports.transcript_log import KEPT, TranscriptLog, rewards_of
from .reports.transcript_table import TranscriptTable
from .returns.returns import answers, reward_inputs, weigh_rewards
from .rollouts.branches import make_branches
from .rollouts.resampling import Resampler
from .rollouts.rollouts import Rollouts
from .runs import checkpoint, hub
from .runs.checkpoint_files import put_checkpoint
from .runs.member_state import find_beginning, load_member_state, save_member
from .runs.preemption import PreemptionCallback
from .runs.stage_state import save_stage
from .runs.weights import load_weights, save_weights
from .team import Team
from .teamtr_config import TeamTRConfig
from .tools import Environments
from .trust_region.engines import prepare_frozen
from .trust_region.snapshot import Snapshot
from .trust_region.turn_radii import count_own_turns, make_turn_radii


class LeadTrainer(AgentTrainer):
    """
    The trainer of a team's first trainable member, which also owns the datasets, the rewards, the callbacks and the logs
    of the team, and whose evaluations and checkpoints are those of all members.

    The changes w.r.t. [`~trl.GRPOTrainer`] are those of [`AgentTrainer`], and:

    - `_set_signature_columns_if_needed` keeps the private prompts.
    - `_generate_and_score_completions` collects rollouts of the team if it is given none.
    - `evaluate` puts all agents into evaluation mode; `evaluation_loop` separates the metrics of several datasets.
    - `create_model_card` describes the team.
    - `_determine_best_metric` lets a preempted run save with `save_strategy="best"`.
    - `_push_from_checkpoint` pushes no pickled arguments, which may hold a token.
    - `save_model`, `_save_checkpoint`, `_load_from_checkpoint` and `_load_best_model` save and load the whole team.

    Attributes:
        members (`list[AgentTrainer]`): The trainers of all agents whose models are here, in team order; this one is among them.
        trained_members (`list[AgentTrainer]`): Those that are trained.
        team ([`Team`]): The speakers of the agents, and the rules.
        active ([`ActiveUpdate`]): The update in progress, for callbacks: the events of `TrainerCallback` do not say which
            agent is updated.
    """

    members: list[AgentTrainer]
    team: Team
    active: ActiveUpdate
    residency: Residency
    _start_time: float

    # The team

    def _add_peers(self, agents: list[Agent], args: TeamTRConfig, processing_class, common: dict[str, Any]):
        """Make the trainers of the other agents, and the lists of members."""
        num_trained = sum(agent.trainable for agent in agents)
        # The peers get the lead's reward models, loaded, since TRL logs each batch's rewards from the member's own list
        common |= {"reward_funcs": list(self.reward_funcs)}
        common |= {"reward_processing_classes": list(self.reward_processing_classes)}
        self.members: list[AgentTrainer] = []
        for agent in (agent for agent in agents if not agent.is_remote):
            arguments = grpo_arguments(agent, args, processing_class, lead=False, num_trained=num_trained)
            self.members.append(self if agent is self.agent else AgentTrainer(agent, lead=self, **common, **arguments))
        for member in self.members:
            check_trainable_weights(member.model, member.agent)
            if member.ref_model is not None:
                count_positions_from_mask(self.accelerator.unwrap_model(member.ref_model))
            check_router_loss(member.model, member.agent, member.aux_loss_enabled)
        self.trained_members = [member for member in self.members if member.agent.trainable]
        self.peers = [member for member in self.members if member is not self]

    def _make_team(
        self,
        agents: list[Agent],
        rules: RolloutRules,
        args: TeamTRConfig,
        dataset: Any,
        environments: Environments | None,
    ) -> Team:
        """The team of `agents`, with what is saved with it; `dataset` is what it is trained on."""
        settings = SpeakingSettings.of(args, environments=environments).as_spoken(args)
        here: dict[str, Participant] = {member.name: member.speaker for member in self.members}
        speakers = [
            make_remote_speaker(agent, settings, self.accelerator) if agent.is_remote else here[agent.name]
            for agent in agents
        ]
        conversational = not isinstance(next(iter(dataset))["prompt"], str)
        return Team(speakers, rules, self.accelerator, settings, TurnTaking.of(args), conversational)

    def _share_equipment(self, args: TeamTRConfig, agents: list[Agent]):
        """Set up what all members share: the device, the rollouts, the records and the callbacks."""
        self._share_records()
        self.residency = Residency(self.members, args.offload_idle_agents)
        if args.use_vllm:
            preflight.refuse_processors({member.name: member.processing_class for member in self.members})
            self.team.speak_through(make_fleet(self.team.local_speakers, args))
            for member in self.members:
                member.args.use_vllm = True  # as it was given; saved with the team
                # Of TRL's own use of vLLM only the correction is left, which this turns on
                member.use_vllm = args.vllm_importance_sampling_correction
        for member in self.members:
            turns = count_own_turns(self.team.rules, self.team.names, member.name)
            member.turn_radii = make_turn_radii(member.radius, args.radius_schedule, turns)
        self.branches = make_branches(self.team.turn_loop, args)
        self.resampler = Resampler(
            self.team.turn_loop,
            choose_resampling(args, agents, self.team.settings.environments),
            args.resample_every,
            args.importance_clip,
            args.per_device_train_batch_size,
            self.log_metric,
            self.branches.num_generations if self.branches is not None else 1,
        )
        self.silence, self.idleness = SilenceWatch(), IdleWatch(args.max_idle_updates)
        self.active = ActiveUpdate(self)
        self.preemption, self.times = PreemptionCallback(self.accelerator), PhaseTimes(self.log_metric)
        self.add_callback(self.preemption)
        self.add_callback(LogFileCallback())
        self.transcript_log = TranscriptLog(self._output_dir, self.is_world_process_zero())
        self.add_callback(self.transcript_log)
        adapt_trackers(self.callback_handler, self.team.describe, len(self.trained_members))
        show_in_terminal(self.callback_handler, self)
        if args.log_completions:
            self.add_callback(TranscriptTable(self, args.num_completions_to_print))
            self.num_completions_to_print = 0  # TRL's own table has no speakers

    def _share_records(self):
        """Let all members use the metrics, logs and counters of the lead."""
        for peer in self.peers:
            peer.state, peer.control = self.state, self.control
            peer._metrics, peer._logs = self._metrics, self._logs
            peer._pending_metrics, peer._pending_extra_logs = self._pending_metrics, self._pending_extra_logs

    def _prepare_members(self, max_steps: int, dataloader: DataLoader, checkpoint_folder: str | None):
        """
        Prepare the optimizers, schedules and engines of all trained agents, and check that models score as they sample.

        Args:
            max_steps (`int`): Updates in the run.
            dataloader ([`~torch.utils.data.DataLoader`]): The lead's.
            checkpoint_folder (`str`, *optional*): Checkpoint of the team to resume from.
        """
        num_stages = math.ceil(max_steps / len(self.trained_members))
        self.residency.release()
        for member in self.members:
            if not member.agent.trainable:
                prepare_frozen(member)
                member.speaker.policy.wrap(member.model_wrapped)
        for member in self.trained_members:
            begin = find_beginning(member.model, checkpoint_folder and folder_of(checkpoint_folder, member.name))
            member.joined, member.num_updates = begin.joined, num_stages - begin.joined // len(self.trained_members)
            if member is self:
                self._prepare_for_training(member.num_updates, dataloader, begin.folder)
            else:
                member.train(resume_from_checkpoint=begin.folder)
            if begin.folder:
                load_member_state(member, member.controller, member.floors, begin.state)
            member.speaker.backend.publish(member.name)  # it may have the weights of a checkpoint
        self.residency.start()
        for member in self.members:
            check_padding(member.speaker)

    def _fix_template_date(self):
        """Let all chat templates print one date: the config's or the checkpoint's, else the day on which the run begins."""
        date = agree_on_date(self.args.template_date)
        self.team.settings = dataclasses.replace(self.team.settings, template_date=date)
        for member in self.members:
            member.args.template_date = date  # saved with the team
            member.speaker.fix_date(date)

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        columns: Any = self._signature_columns
        if "agent_prompts" not in columns:
            columns.append("agent_prompts")

    # Rollouts and returns

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]], rollouts: Rollouts | None = None):
        rollouts = rollouts if rollouts is not None else self.team.collect(inputs)
        output = super()._generate_and_score_completions(inputs, rollouts)
        if not self.model.training:
            self._keep_transcripts(self, rollouts)
            add_returns(self._metrics["eval"], self.returns, self.num_generations_eval)
        return output

    def _watch_tokens(self, member: AgentTrainer, batch: dict[str, Any]) -> TokenRatios:
        """By how much the coming update of `member` changes its tokens; all processes call this together."""
        measured = member.radius is None or member.kl_estimator == "k3"
        return TokenRatios(member.speaker, batch, measured)

    def _keep_transcripts(
        self,
        member: AgentTrainer,
        rollouts: Rollouts,
        advantages: torch.Tensor | None = None,
        log_ratios: torch.Tensor | None = None,
    ):
        """
        Write some of the rollouts that `member` was updated on, or that are evaluated, to `transcripts.jsonl`; with
        `log_ratios`, those of [`TokenRatios`].
        """
        done, number = self.state.global_step, len(rollouts.transcripts)
        step = done if advantages is None else done + 1
        stage = max(0, step - 1) // len(self.trained_members) + 1 if step else 0
        first = self.accelerator.process_index * number
        returns = member.returns[first : first + number].tolist()
        name, own = (None, None) if advantages is None else (member.name, advantages.tolist())
        tokens = None
        if log_ratios is not None and self.is_world_process_zero():
            views = rollouts.views[member.name][:KEPT]
            ratios = log_ratios[: len(views)]
            tokens = [describe_tokens(member.speaker.tokenizer, *each) for each in zip(views, ratios, strict=True)]
        rewards = rewards_of(self._logs["rewards"], first, number, number * self.accelerator.num_processes)
        self.transcript_log.write(step, stage, name, rollouts.transcripts, returns, own, rewards, tokens)

    def compute_returns(self, rows: list[dict[str, Any]], transcripts: list[Transcript]) -> torch.Tensor:
        """
        Weighted sum of the rewards of rollouts. Logs nothing.

        Args:
            rows (`list[dict]`): The rows of the rollouts.
            transcripts (`list[Transcript]`): Of this process. All processes call this together.

        Returns:
            `torch.Tensor` of shape `(rows of all processes,)`, float32; NaN where no function returned a reward.
        """
        prompts = [row["prompt"] for row in rows]
        rewards = self.team_rewards(reward_inputs(rows, transcripts), prompts, answers(transcripts), transcripts)
        # Discarded: what the functions logged by `log_extra` and `log_metric` belongs to no update
        self._pending_extra_logs.clear()
        self._pending_metrics.clear()
        return weigh_rewards(rewards, self.reward_weights)

    def log_metric(self, name: str, value: float):
        """Add a value to a training metric, whose mean is logged next."""
        self._metrics["train"][name].append(value)

    # Evaluation

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix: str = "eval"
    ) -> EvalLoopOutput:
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        add_interval(self._metrics["eval"])
        add_history(self._metrics["eval"], metric_key_prefix, self.state)
        name_by_dataset(self._metrics["eval"], metric_key_prefix)
        return output

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        batch_size = self.args.per_device_eval_batch_size * self.accelerator.num_processes
        preflight.check_eval_batch(batch_size, self.num_generations_eval)
        preflight.check_eval_engine(self.is_deepspeed_enabled, self.deepspeed)
        if isinstance(eval_dataset, Dataset | IterableDataset):
            preflight.check_columns(eval_dataset, self.team.names, metric_key_prefix)
        self._catch_up()
        with evaluating([member.model for member in self.members]):
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def _catch_up(self):
        """After an update that an error has ended, the models follow the reverted weights."""
        for member in self.trained_members:
            member.engine.catch_up()

    # Saving and loading

    @property
    def _output_dir(self) -> str:
        assert self.args.output_dir is not None  # `TeamTRConfig` has one
        return self.args.output_dir

    def _determine_best_metric(self, *args, **kwargs) -> bool:
        # With `save_strategy="best"` this decides whether to save
        return super()._determine_best_metric(*args, **kwargs) or self.preemption.stopped_at is not None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False):
        """
        Save the team: `team.json`, and one directory per agent that `from_pretrained` loads; a team of one is in
        `output_dir` itself, as [`~trl.GRPOTrainer`] saves its model.

        Args:
            output_dir (`str`, *optional*): Directory to save to; defaults to `args.output_dir`.
        """
        output_dir = output_dir if output_dir is not None else self._output_dir
        self._catch_up()
        for member in self.members:
            self._save_member(member, output_dir)
        if self.args.should_save:
            write_team_files(output_dir, self.team.describe(), self.args)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save_member(self, member: AgentTrainer, output_dir: str):
        """Write the model of a member beside its folder, then let it take the place of what is there."""
        place = AgentPlace(output_dir, member.name, len(self.team.names))
        if self.args.should_save:
            place.recover()
        self.accelerator.wait_for_everyone()
        save_weights(member, place.written)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            place.put()
        self.accelerator.wait_for_everyone()  # the processes may write more into it

    def create_model_card(self, *args, **kwargs):
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero():
            describe_team(os.path.join(self._output_dir, "README.md"), self.team.speakers, self.hub_model_id)

    def _save_checkpoint(self, model, trial):
        final = os.path.join(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
        put_checkpoint(
            final, lambda folder: self._write_checkpoint(folder, final), self.args, self.state, self.accelerator
        )
        if self.args.push_to_hub:
            self.save_model(_internal_call=True)  # the output directory is pushed, without its checkpoints
            self._push_from_checkpoint(final)

    def _save_unless_saved(self, trial):
        """A checkpoint of what is there, unless it is the beginning, or there is one."""
        step = self.state.global_step
        if step and not os.path.isdir(os.path.join(self._get_output_dir(trial), f"checkpoint-{step}")):
            self._save_checkpoint(self.model, trial)

    def _write_checkpoint(self, folder: str, final: str):
        self.create_model_card(model_name=self.args.hub_model_id or os.path.basename(self._output_dir))
        self.store_flos()
        self.save_model(folder, _internal_call=True)
        for member in self.trained_members:
            path = own_folder(folder, member.name, len(self.team.names))
            save_member(member, member.controller, member.floors, member.joined, path, self.args.save_only_model)
        if not self.args.save_only_model and self.state.global_step % len(self.trained_members):
            save_stage(self.resampler.stage, folder, self.accelerator, self.args.should_save)
        checkpoint.save_run_state(self, [member.name for member in self.trained_members], folder, final)

    def _push_from_checkpoint(self, checkpoint_folder: str):
        hub.push(self, checkpoint_folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None):
        # Called by the lead's `train`, with the folder of the team
        super()._load_from_checkpoint(folder_of(resume_from_checkpoint, self.name), model)

    def _load_best_model(self):
        best = self.state.best_model_checkpoint
        assert best is not None  # checked by the caller
        for member in self.members:
            folder = folder_of(best, member.name)
            if not self.is_deepspeed_enabled:
                load_weights(member.model, folder)
            elif member.agent.trainable:  # frozen agents have no DeepSpeed checkpoint, and have not changed
                deepspeed_load_checkpoint(member.model_wrapped, folder, not isinstance(member.model, PeftModel))
            if member.agent.trainable:
                member.speaker.backend.publish(member.name)

    def _restore_snapshot(self, name: str, weights: list[torch.Tensor]) -> Snapshot:
        (agent,) = [member for member in self.members if member.name == name]
        return Snapshot(agent.engine, with_optimizer=False, weights=weights)
