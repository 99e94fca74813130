import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tiny import (
    PROMPTS,
    answer_reward,
    changed,
    make_config,
    make_model,
    make_team,
    make_tokenizer,
    make_trainer,
    next_logps,
    weights,
)
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    TrainerCallback,
)
from trl import GRPOTrainer

from trl_teamtr import Agent, TeamTRTrainer
from trl_teamtr.agent_trainer import AgentTrainer


def copy_moments(member):
    """Of the optimizer, for each parameter: the step and the moments, as bytes."""
    states = member.optimizer.state_dict()["state"] if member.optimizer else {}
    return {place: {key: value.numpy().tobytes() for key, value in state.items()} for place, state in states.items()}


class Recorder(TrainerCallback):
    """What each update saw and did: the agent, the rollouts that trained it, and which agents it changed."""

    def __init__(self, monkeypatch):
        self.updates, self.rollouts = [], []
        score = AgentTrainer._generate_and_score_completions

        def spy(agent, inputs, rollouts=None):
            if rollouts is not None:
                self.rollouts.append((agent.name, rollouts.transcripts))
            return score(agent, inputs, rollouts)

        monkeypatch.setattr(AgentTrainer, "_generate_and_score_completions", spy)

    def on_step_begin(self, args, state, control, **kwargs):
        self.before = {m.name: (weights(m.model), copy_moments(m)) for m in self.members}

    def on_step_end(self, args, state, control, **kwargs):
        moved = [m.name for m in self.members if changed(self.before[m.name][0], m.model)]
        stepped = [m.name for m in self.members if m.optimizer and self.before[m.name][1] != copy_moments(m)]
        self.updates.append((self.members[0].lead.active.agent.name, moved, stepped))


def record(trainer, monkeypatch):
    recorder = Recorder(monkeypatch)
    recorder.members = trainer.members
    trainer.add_callback(recorder)
    return recorder


def test_is_a_grpo_trainer(tmp_path):
    assert isinstance(make_trainer(tmp_path, make_team(2)), GRPOTrainer)


@pytest.mark.parametrize("order, expected", [("sequential", "xyz"), ("reversed", "zyx")])
def test_each_update_changes_its_agent_and_no_other(tmp_path, monkeypatch, order, expected):
    trainer = make_trainer(tmp_path, make_team(3), num_stages=2, update_order=order, trust_region_radius=0.5)
    recorder = record(trainer, monkeypatch)
    trainer.train()
    assert recorder.updates == [(name, [name], [name]) for name in expected * 2]
    assert trainer.state.global_step == 6


def test_rollouts_that_train_an_agent_come_from_the_team_as_updated_so_far(tmp_path, monkeypatch):
    trainer = make_trainer(
        tmp_path,
        make_team(2, 4),
        per_device_train_batch_size=64,
        num_generations=8,
        trust_region_radius=None,
        num_iterations=8,
        max_grad_norm=1e3,
        learning_rate=0.03,
    )
    recorder = record(trainer, monkeypatch)
    old = make_team(2, 4)[0].model
    trainer.train()

    def mean_log_ratio(transcripts):
        """Mean of log π_new - log π_old of x's messages: positive under π_new, negative under π_old."""
        ratios = []
        for transcript in transcripts:
            ids = trainer._tokenizer(f"{transcript.prompt}\n\nx:")["input_ids"]
            ratio = 0.0
            for token in transcript.messages[0].ids:
                ratio += (next_logps(trainer.model, ids)[token] - next_logps(old, ids)[token]).item()
                ids = ids + [token]
            ratios.append(ratio)
        return sum(ratios) / len(ratios)

    (first, start), (second, after) = recorder.rollouts
    assert (first, second) == ("x", "y")
    assert mean_log_ratio(start) < -0.05
    assert mean_log_ratio(after) > 0.05


def test_all_updates_of_a_stage_use_its_prompts_and_stages_use_different_ones(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, make_team(2), num_stages=3)
    recorder = record(trainer, monkeypatch)
    trainer.train()
    prompts = [tuple(t.prompt for t in transcripts) for _, transcripts in recorder.rollouts]
    assert len(prompts) == 6
    for stage in range(3):
        assert prompts[2 * stage] == prompts[2 * stage + 1]
    assert all(len(set(p)) == 2 and p[:4] == (p[0],) * 4 for p in prompts)
    assert not set(prompts[0]) & set(prompts[2])


def test_training_raises_the_reward(tmp_path):
    trainer = make_trainer(
        tmp_path,
        make_team(2),
        num_stages=15,
        per_device_train_batch_size=64,
        num_generations=16,
        per_device_eval_batch_size=512,
        num_generations_eval=64,
        trust_region_radius=0.2,
        learning_rate=5e-3,
    )
    before = trainer.evaluate()["eval_reward"]
    trainer.train()
    assert trainer.evaluate()["eval_reward"] > before + 0.2
    assert all(log["out_of_region_rate"] == 0 for log in trainer.state.log_history if "out_of_region_rate" in log)


def test_frozen_agents_speak_and_stay(tmp_path, monkeypatch):
    team = make_team(3)
    team[0].trainable = False
    trainer = make_trainer(tmp_path, team, num_stages=2)
    recorder = record(trainer, monkeypatch)
    trainer.train()
    assert [update[0] for update in recorder.updates] == ["y", "z"] * 2
    assert not any("x" in moved for _, moved, _ in recorder.updates)
    assert [m.agent for m in recorder.rollouts[0][1][0].messages] == ["x", "y", "z"]


def test_a_frozen_agent_speaks_in_the_dtype_of_its_checkpoint(tmp_path):
    team = make_team(2)
    team[0].model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    team[0] = Agent("x", str(tmp_path / "half"), processing_class=team[0].processing_class, trainable=False)
    trainer = make_trainer(tmp_path / "run", team, num_stages=1)
    trainer.train()
    trainer.save_model()
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "x", dtype="auto")
    assert {weight.dtype for weight in trainer.members[0].model.parameters()} == {torch.bfloat16} == {saved.dtype}
    assert trainer.members[1].model.dtype == torch.float32


def test_agents_keep_their_own_settings(tmp_path):
    team = make_team(2)
    team[1].learning_rate, team[1].trust_region_radius = 1e-4, 0.5
    team[1].generation_kwargs = {"temperature": 0.7, "max_completion_length": 1}
    trainer = make_trainer(tmp_path, team, num_stages=1)
    trainer.train()
    rates = {log["step"]: log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log}
    assert rates == {1: 1e-2, 2: 1e-4}
    x, y = trainer.members
    assert (x.radius, y.radius) == (0.01, 0.5)
    assert (x.temperature, y.temperature, x.generation_config.temperature, y.generation_config.temperature) == (
        1.0,
        0.7,
        1.0,
        0.7,
    )
    messages = trainer.team.collect([{"prompt": "a"}] * 50).transcripts
    assert max(len(t.messages[0].ids) for t in messages) == 2 and max(len(t.messages[1].ids) for t in messages) == 1


def test_schedules_step_once_per_update_of_their_agent(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), num_stages=4, lr_scheduler_type="linear")
    trainer.train()
    rates = [log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log]
    assert rates == pytest.approx([1e-2, 1e-2, 7.5e-3, 7.5e-3, 5e-3, 5e-3, 2.5e-3, 2.5e-3])


def test_max_steps_counts_updates_and_may_end_within_a_stage(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, make_team(2), num_stages=None, max_steps=3)
    recorder = record(trainer, monkeypatch)
    trainer.train()
    assert [update[0] for update in recorder.updates] == ["x", "y", "x"]


def test_epochs_decide_without_stages_and_steps(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), num_stages=None, num_train_epochs=1.5)
    trainer.train()  # 8 prompts, 2 per stage: 4 stages in an epoch
    assert trainer.state.global_step == 12 and trainer.state.epoch == 1.5


def test_streaming_dataset(tmp_path, monkeypatch):
    dataset = Dataset.from_dict({"prompt": PROMPTS}).to_iterable_dataset()
    trainer = make_trainer(tmp_path, make_team(2), dataset=dataset, num_stages=6, gradient_accumulation_steps=2)
    recorder = record(trainer, monkeypatch)
    trainer.train()
    assert len(recorder.rollouts) == 12
    assert {t.prompt for _, transcripts in recorder.rollouts[:4] for t in transcripts} == set(PROMPTS)


def test_callback_can_stop_the_run_within_a_stage(tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = True

    trainer = make_trainer(tmp_path, make_team(3), callbacks=[Stop()])
    trainer.train()
    assert trainer.state.global_step == 1


def test_heterogeneous_team_trains(tmp_path):
    """Two families, two sizes, two tokenizers, a chat template each, LoRA beside full fine-tuning."""
    from trl_teamtr.tasks import link

    small, large = link.make_tokenizer(), link.make_tokenizer()
    large.add_tokens(["extra"])
    large.chat_template = small.chat_template.replace("<|user|>", "<|user|>\n").replace("message['role']", "'user'")
    config = LlamaConfig(
        vocab_size=len(large),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=large.eos_token_id,
    )
    team = [
        Agent("a", link.make_model(small, 0), processing_class=small),
        Agent(
            "b",
            AutoModelForCausalLM.from_config(config),
            processing_class=large,
            system_prompt="abc",
            peft_config=LoraConfig(r=2, target_modules=["q_proj"]),
        ),
    ]
    args = make_config(tmp_path, num_stages=1, trust_region_radius=1.0, num_rounds=2)
    trainer = TeamTRTrainer(team, link.link_reward, args, train_dataset=link.make_dataset(2, 20, 0))
    before = [weights(m.model) for m in trainer.members]
    trainer.train()
    assert all(changed(b, m.model) for b, m in zip(before, trainer.members, strict=True))
    base = [n for n, p in trainer.members[1].model.named_parameters() if "lora" not in n]
    assert all(torch.equal(before[1][n], trainer.members[1].model.get_parameter(n)) for n in base)


def test_lora_agents_share_one_base_and_update_their_own_adapter(tmp_path, monkeypatch):
    base = make_model()
    base.save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    lora = LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    team = [Agent(name, str(tmp_path / "base"), peft_config=lora) for name in "xyz"]
    trainer = make_trainer(tmp_path / "run", team, num_stages=1, trust_region_radius=1.0)
    storages = [{p.data_ptr() for n, p in m.model.named_parameters() if "lora" not in n} for m in trainer.members]
    assert storages[0] == storages[1] == storages[2]
    recorder = record(trainer, monkeypatch)
    trainer.train()
    assert recorder.updates == [(name, [name], [name]) for name in "xyz"]


@pytest.mark.parametrize("peft", [False, True])
def test_reference_kl_is_logged_and_starts_at_zero(tmp_path, peft):
    base = make_model()
    base.save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj"]) if peft else None
    team = [Agent(name, str(tmp_path / "base"), peft_config=config) for name in "xy"]
    trainer = make_trainer(tmp_path / "run", team, num_stages=3, beta=0.1, trust_region_radius=1.0, num_iterations=1)
    trainer.train()
    kl = [log["kl"] for log in trainer.state.log_history if "kl" in log]
    assert kl[:2] == pytest.approx([0, 0], abs=1e-6) and max(kl[2:]) > 1e-7


def test_frozen_agents_need_no_reference_model(tmp_path):
    team = make_team(2)
    for agent in team:
        agent.model.save_pretrained(tmp_path / agent.name)
        agent.model = str(tmp_path / agent.name)
    team[0].trainable = False
    frozen, trained = make_trainer(tmp_path / "run", team, beta=0.1).members
    assert frozen.ref_model is None and trained.ref_model is not None


@pytest.mark.parametrize("team_size, num_agents", [(1, None), (3, 3)])
def test_single_model_makes_a_team_of_one_or_of_equals(tmp_path, team_size, num_agents):
    trainer = TeamTRTrainer(
        make_model(),
        answer_reward,
        make_config(tmp_path, num_agents=num_agents, trust_region_radius=1.0),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=make_tokenizer(),
    )
    assert len(trainer.members) == team_size and len({id(m.model) for m in trainer.members}) == team_size
    trainer.train()
    assert trainer.state.global_step == team_size


async def async_reward(completions, **kwargs):
    return [0.5 for _ in completions]


def sparse_reward(completions, **kwargs):
    return [None if i % 2 else 1.0 for i, _ in enumerate(completions)]


def test_all_kinds_of_rewards_together(tmp_path):
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=3,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_labels=1,
        pad_token_id=1,
    )
    trainer = TeamTRTrainer(
        make_team(2),
        [answer_reward, async_reward, sparse_reward, LlamaForSequenceClassification(config)],
        make_config(tmp_path, reward_weights=[1.0, 2.0, 0.5, 0.1]),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        reward_processing_classes=[None, None, None, tokenizer],
    )
    trainer.train()
    log = trainer.state.log_history[1]
    assert log["rewards/async_reward/mean"] == 0.5 and log["rewards/sparse_reward/mean"] == 1.0
    model = [value for key, value in log.items() if key.startswith("rewards/") and key.endswith("/mean")][-1]
    # Half of the rollouts have a sparse reward
    expected = log["rewards/answer_reward/mean"] + 2 * 0.5 + 0.5 * 0.5 + 0.1 * model
    assert log["reward"] == pytest.approx(expected, abs=1e-5)


def test_evaluation_leaves_weights_and_modes_alone(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), num_stages=1, eval_strategy="steps", eval_steps=1)
    trainer.train()
    evaluations = [log for log in trainer.state.log_history if "eval_reward" in log]
    assert len(evaluations) == 2 and evaluations[0]["eval_reward"] != 0
    before = [weights(m.model) for m in trainer.members]
    trainer.evaluate()
    assert not any(changed(b, m.model) for b, m in zip(before, trainer.members, strict=True))


class Epochs(TrainerCallback):
    def __init__(self):
        self.seen = []

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.seen.append(f"begin {state.global_step}")

    def on_epoch_end(self, args, state, control, **kwargs):
        self.seen.append(f"end {state.global_step}")


@pytest.mark.parametrize("max_steps", [12, 11])
def test_epochs_log_evaluate_and_save(tmp_path, max_steps):
    """Of 8 prompts, two at a time, by two agents: 8 updates."""
    by_epoch = {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch"}
    fields = {"num_stages": None, "max_steps": max_steps, "callbacks": [Epochs()]}
    trainer = make_trainer(tmp_path, make_team(2), **by_epoch, **fields)
    trainer.train()
    assert fields["callbacks"][0].seen == ["begin 0", "end 8", "begin 8", f"end {max_steps}"]
    logs = trainer.state.log_history
    ends = [8, max_steps]
    assert [log["step"] for log in logs if "eval_reward" in log] == ends
    assert [log["step"] for log in logs if "team/reward" in log] == ends
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == sorted(f"checkpoint-{end}" for end in ends)


def test_model_that_was_best_at_the_end_of_an_epoch_is_loaded(tmp_path):
    by_epoch = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    fields = {"num_stages": None, "num_train_epochs": 2}
    with pytest.warns(UserWarning, match="the best team is that of the largest `eval_reward`"):
        trainer = make_trainer(tmp_path, make_team(2), **by_epoch, **fields)
    trainer.train()
    rewards = [log["eval_reward"] for log in trainer.state.log_history if "eval_reward" in log]
    assert trainer.args.greater_is_better and trainer.state.best_metric == max(rewards)
    assert trainer.state.best_model_checkpoint is not None


def test_one_agent_needs_no_list_and_rewards_may_be_a_tuple(tmp_path):
    (agent,) = make_team(1)
    trainer = make_trainer(tmp_path, agent, reward_funcs=(answer_reward, answer_reward))
    assert trainer.team.names == ("x",) and len(trainer.reward_funcs) == 2


def test_limit_of_a_context_is_found_by_any_name(tmp_path):
    config = GPT2Config(vocab_size=3, n_positions=24, n_embd=8, n_layer=1, n_head=1)
    trainer = make_trainer(tmp_path, [Agent("x", GPT2LMHeadModel(config), processing_class=make_tokenizer())])
    assert trainer.speaker.max_view_length == 24
