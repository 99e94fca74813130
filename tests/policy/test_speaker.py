"""
A speaker without a trainer samples and scores as TRL's `GRPOTrainer` does, to the bit; TRL scores with positions that it
counts from the first column, or here from the mask.
"""

import copy
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import trl
from accelerate import Accelerator
from datasets import Dataset
from families import make_family
from peft import LoraConfig, get_peft_model
from tiny import PROMPTS, make_config, make_model, make_team, make_tokenizer, make_trainer
from tokenizers_for_tests import tokenizer_for
from trl import GRPOConfig, GRPOTrainer

from trl_teamtr import Agent
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
from trl_teamtr.policy.backend import Written
from trl_teamtr.policy.making import make_speakers
from trl_teamtr.policy.positions import count_positions_from_mask


CONTEXTS = [[2], [0, 2], [2, 2, 0, 2], [0], [2, 0]]
SAMPLING = {
    "plain": {},
    "temperature": {"temperature": 0.6},
    "truncated": {"temperature": 1.3, "top_k": 2, "top_p": 0.9, "min_p": 0.05},
    "penalty": {"repetition_penalty": 1.2},
    "generation_kwargs": {"generation_kwargs": {"no_repeat_ngram_size": 2}},
    "padded": {"pad_to_multiple_of": 8},
}


def adapter():
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], init_lora_weights=False)
    torch.manual_seed(3)
    return get_peft_model(make_model(), config)


def make_pair(folder, model, **fields):
    """TRL's own trainer, and a speaker that knows nothing of it."""
    args = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none"}
    args |= {
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "max_completion_length": 6,
        "disable_dropout": True,
    }
    trainer = GRPOTrainer(
        copy.deepcopy(model),
        lambda completions, **kwargs: [0.0] * len(completions),
        GRPOConfig(str(folder), **args, **fields),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=make_tokenizer(),
    )
    agent = Agent("x", model, processing_class=make_tokenizer())
    pad_to = fields.pop("pad_to_multiple_of", None)
    sampling = SamplingSettings(max_completion_length=6, **fields)
    (speaker,) = make_speakers([agent], SpeakingSettings(sampling, pad_to_multiple_of=pad_to), Accelerator())
    return trainer, speaker


@pytest.mark.parametrize("make", [make_model, adapter], ids=["model", "adapter"])
@pytest.mark.parametrize("fields", SAMPLING.values(), ids=list(SAMPLING))
def test_samples_are_those_of_grpo(tmp_path, make, fields):
    trainer, speaker = make_pair(tmp_path, make(), **fields)
    assert speaker.eos_token_ids == trainer.eos_token_ids
    assert speaker.backend.config.to_dict() == trainer.generation_config.to_dict()
    torch.manual_seed(5)
    theirs, _ = trainer._generate_single_turn(CONTEXTS, None, {}, 1)
    torch.manual_seed(5)
    ours = speaker.speak(CONTEXTS)
    assert [list(message.ids) for message in ours] == theirs
    assert len({message.ids for message in ours}) > 1


@pytest.mark.parametrize("make", [make_model, adapter], ids=["model", "adapter"])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_log_probabilities_are_those_of_grpo(tmp_path, make, batch_size):
    trainer, speaker = make_pair(tmp_path, make(), temperature=0.7)
    count_positions_from_mask(trainer.model)
    ids = torch.tensor([[1, 1, 2, 0, 2, 1], [0, 2, 2, 0, 0, 2], [1, 2, 0, 2, 1, 1]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0]])
    with torch.no_grad():
        theirs, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, 4, batch_size)
    batch = {
        "prompt_ids": ids[:, :2],
        "prompt_mask": mask[:, :2],
        "completion_ids": ids[:, 2:],
        "sampled_ids": ids[:, 2:],
        "completion_mask": mask[:, 2:],
    }
    ours = speaker.token_logps(batch, batch_size)
    assert torch.equal(ours, theirs) and (ours[:, :3] < 0).all()
    assert not ours.requires_grad


def test_members_in_training_sample_with_the_config_that_trl_has_made(tmp_path):
    team = make_team(2)
    team[1].generation_kwargs = {"temperature": 0.5, "max_new_tokens": 1}
    trainer = make_trainer(tmp_path, team, top_k=2, kl_estimator="exact")
    for member in trainer.members:
        assert member.speaker.backend.config.to_dict() == member.generation_config.to_dict()
        assert member.speaker.eos_token_ids == member.eos_token_ids
        assert member.speaker.sampling.max_completion_length == member.max_completion_length
    assert [member.speaker.sampling.temperature for member in trainer.members] == [1.0, 0.5]


def test_a_models_own_weights_serve_and_its_modules_are_left_alone():
    model = adapter()
    forward, state = vars(model).get("forward"), model.training
    (speaker,) = make_speakers(
        [Agent("x", model, processing_class=make_tokenizer())], SpeakingSettings(), Accelerator()
    )
    own, theirs = dict(speaker.policy.model.named_parameters()), dict(model.named_parameters())
    assert speaker.policy.model is not model and all(own[name] is theirs[name] for name in theirs)
    assert vars(model).get("forward") is forward and model.training == state


def test_agents_may_share_one_model():
    model = make_model()
    agents = [Agent(name, model, processing_class=make_tokenizer()) for name in "xy"]
    first, second = make_speakers(agents, SpeakingSettings(), Accelerator())
    assert first.policy.model is not second.policy.model
    assert next(first.policy.model.parameters()) is next(second.policy.model.parameters())


def test_messages_continue_from_their_beginnings(tmp_path):
    speaker = make_trainer(tmp_path, make_team(1), max_completion_length=3).speaker
    whole, cut, fresh = speaker.speak([[2], [2], [2]], [(0, 1), (2,), ()])
    assert whole.ids == (0, 1) and whole.finished
    assert cut.ids[0] == 2 and 1 < len(cut.ids) <= 3 and 1 <= len(fresh.ids) <= 3
    assert speaker.speak([]) == []


def test_room_leaves_place_for_a_message(tmp_path):
    args = {"max_context_length": 20, "max_completion_length": 3}
    assert make_trainer(tmp_path, make_team(1), **args).speaker.room == 17
    assert make_trainer(tmp_path, make_team(1), max_completion_length=3).speaker.room == 128 - 3


def test_continuous_batching_is_refused():
    with pytest.raises(ValueError, match="`use_transformers_continuous_batching=True` is not supported"):
        make_config("x", use_transformers_continuous_batching=True)


WHAT_OTHERS_READ = {
    # Special tokens are left out; what stands between them stays, thoughts and the names of channels included
    "gptoss": (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>It is seven<|return|>",
        "analysishmassistantfinalIt is seven",
    ),
    "qwen3": ("<think>\nhm\n</think>\n\nIt is seven<|im_end|>", "<think>\nhm\n</think>\n\nIt is seven"),
    # The prompt has opened the thought
    "qwen3_5_think": ("hm\n</think>\n\nIt is seven<|im_end|>", "hm\n</think>\n\nIt is seven"),
    "cohere2": ("It is seven<|END_RESPONSE|><|END_OF_TURN_TOKEN|>", "It is seven"),
}


@pytest.mark.parametrize("name", WHAT_OTHERS_READ)
def test_others_read_a_message_without_its_special_tokens_and_with_its_thoughts(name):
    written, read = WHAT_OTHERS_READ[name]
    tokenizer = tokenizer_for((Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text())
    ids = tokenizer(written, add_special_tokens=False)["input_ids"]
    agent = Agent(
        "x", make_model(len(tokenizer)), processing_class=tokenizer, generation_kwargs={"eos_token_id": ids[-1]}
    )
    (speaker,) = make_speakers([agent], SpeakingSettings(), Accelerator())
    speaker.backend = SimpleNamespace(generate=lambda requests: [Written(ids)])
    (message,) = speaker.speak([[2]])
    assert (message.text, message.ids, message.finished) == (read, tuple(ids), True)


@pytest.mark.parametrize(
    "thoughts, read", [("private", "It is seven"), ("shared", "<think>\nhm\n</think>\n\nIt is seven")]
)
def test_in_a_team_others_read_the_answer_unless_thoughts_are_shared(thoughts, read):
    tokenizer = tokenizer_for((Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text())
    ids = tokenizer("<think>\nhm\n</think>\n\nIt is seven<|im_end|>", add_special_tokens=False)["input_ids"]
    agents = [
        Agent(
            name,
            make_model(len(tokenizer)),
            processing_class=tokenizer,
            thoughts=thoughts,
            generation_kwargs={"eos_token_id": ids[-1]},
        )
        for name in "xy"
    ]
    speaker, _ = make_speakers(agents, SpeakingSettings(), Accelerator())
    speaker.backend = SimpleNamespace(
        generate=lambda requests: [Written(ids[len(ids) - request.max_tokens :]) for request in requests]
    )
    context = tokenizer("<|im_start|>assistant\n")["input_ids"]
    whole, continued, done = speaker.speak([context] * 3, [(), tuple(ids[:3]), tuple(ids)])
    assert done.text == read and done.thought == ("hm" if thoughts == "private" else "")


def test_without_a_limit_of_its_own_a_message_fills_what_room_its_context_has_left():
    agent = Agent("x", make_model(), processing_class=make_tokenizer())
    sampling = SamplingSettings(max_completion_length=None, generation_kwargs={"eos_token_id": 7})  # never sampled
    (speaker,) = make_speakers([agent], SpeakingSettings(sampling, max_context_length=9), Accelerator())
    assert speaker.room == 8
    messages = speaker.speak([*CONTEXTS, [0, 2]], [()] * 5 + [(0, 0, 2)])
    assert [len(message.ids) for message in messages] == [8, 7, 5, 8, 7, 7] and messages[-1].ids[:3] == (0, 0, 2)


def test_messages_need_a_limit_where_the_model_has_none():
    agent = Agent("x", make_family("mamba", 0), processing_class=make_tokenizer())
    settings = SpeakingSettings(SamplingSettings(max_completion_length=None))
    with pytest.raises(ValueError, match="Agent 'x' has `max_completion_length=None`.*Set `max_completion_length` or"):
        make_speakers([agent], settings, Accelerator())


@pytest.mark.parametrize("resampling", ["full", "speculative"])
def test_a_team_trains_without_a_limit_for_messages(tmp_path, resampling):
    fields = {"max_completion_length": None, "max_context_length": 40, "resampling": resampling}
    trainer = make_trainer(tmp_path, make_team(2), trust_region_radius=0.5, **fields)
    trainer.train()
    longest = max(log.get("completions/max_length", 0) for log in trainer.state.log_history)
    assert 2 < longest <= 40


def test_a_continued_message_has_log_probabilities_for_what_was_sampled():
    agent = Agent("x", make_model(), processing_class=make_tokenizer())
    (speaker,) = make_speakers([agent], SpeakingSettings(SamplingSettings(max_completion_length=4)), Accelerator())
    fresh, begun, complete = speaker.speak([[2], [2], [2]], [(), (0, 2), (0, 2, 0, 2)])
    assert len(fresh.logps) == len(fresh.ids) and all(logp < 0 for logp in fresh.logps)
    assert [math.isnan(logp) for logp in begun.logps] == [True] * 2 + [False] * (len(begun.ids) - 2)
    assert complete.logps is None and len(begun.ids) > 2
