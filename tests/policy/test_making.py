"""Speakers of models on disk, of adapters, and of what is loaded already."""

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig
from tiny import make_model, make_team, make_tokenizer

from trl_teamtr import Agent
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
from trl_teamtr.policy.backend import Request
from trl_teamtr.policy.making import load_members, make_speakers


def save(folder, seed=0):
    make_model(seed=seed).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


def test_models_on_disk_come_with_their_tokenizer_and_in_their_own_dtype(tmp_path):
    agents = [Agent("x", save(tmp_path / "x")), Agent("y", save(tmp_path / "y", 1), system_prompt="ua")]
    settings = SpeakingSettings(model_init_kwargs={"dtype": "bfloat16"}, max_context_length=40)
    first, second = make_speakers(agents, settings, Accelerator())
    assert first.tokenizer.padding_side == "left" and first.tokenizer.pad_token_id == 1
    assert next(first.policy.model.parameters()).dtype == torch.bfloat16
    assert first.max_view_length == 40 and second.agent.system_prompt == "ua"
    assert agents[0].model == str(tmp_path / "x")  # what the user gave is left alone


def test_adapters_share_their_base_and_get_one_each(tmp_path):
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
    base = save(tmp_path / "base")
    first, second = make_speakers(
        [Agent(name, base, peft_config=lora) for name in "xy"], SpeakingSettings(), Accelerator()
    )
    weights = [dict(speaker.policy.model.named_parameters()) for speaker in (first, second)]
    shared = {name for name in weights[0] if weights[0][name] is weights[1][name]}
    assert shared == {name for name in weights[0] if "lora_" not in name} and len(shared) < len(weights[0])


def test_members_that_are_loaded_once_serve_several_teams(tmp_path):
    members = load_members([Agent("x", save(tmp_path / "x"))], SpeakingSettings())
    (one,), (other,) = (make_speakers(members, SpeakingSettings(), Accelerator()) for _ in range(2))
    assert one.policy.model is not other.policy.model
    assert next(one.policy.model.parameters()) is next(other.policy.model.parameters())


def test_an_agents_own_settings_go_before_the_teams():
    agent = Agent(
        "x", make_model(), processing_class=make_tokenizer(), generation_kwargs={"temperature": 0.5, "top_k": 1}
    )
    settings = SpeakingSettings(SamplingSettings(temperature=0.9, max_completion_length=3))
    (speaker,) = make_speakers([agent], settings, Accelerator())
    assert speaker.sampling == SamplingSettings(temperature=0.5, top_k=1, max_completion_length=3)


@pytest.mark.parametrize("given, ends", [(None, [1]), (2, [2]), ([2, 0], [2, 0])])
def test_ids_that_end_a_message_come_from_one_place(given, ends):
    """Sampling, cutting, rendering and the counts of finished messages agree, and nothing after the end is kept."""
    agent = Agent("x", make_model(), processing_class=make_tokenizer())
    agent.generation_kwargs = None if given is None else {"eos_token_id": given}
    settings = SpeakingSettings(SamplingSettings(max_completion_length=6))
    (speaker,) = make_speakers([agent], settings, Accelerator())
    assert speaker.eos_token_ids == ends and speaker.backend.config.eos_token_id == ends
    torch.manual_seed(0)
    found = [written.ids for written in speaker.backend.generate([Request("x", [0, 2], 6)] * 64)]
    assert all(token not in ends for ids in found for token in ids[:-1])
    assert all(len(ids) == 6 or ids[-1] in ends for ids in found)
    assert any(len(ids) < 6 for ids in found)


def test_thoughts_that_nobody_finds_cannot_be_left_out():
    agents = make_team(2, keep_thoughts=False)
    with pytest.raises(
        ValueError, match="Agent 'x' has `keep_thoughts=False`, but neither its tokenizer nor TRL knows"
    ):
        make_speakers(agents, SpeakingSettings(), Accelerator())
    for agent in agents:
        agent.thinking_end = "u"
    assert all(
        speaker.renderer_for("a").forgets for speaker in make_speakers(agents, SpeakingSettings(), Accelerator())
    )
    # In a team of one too, whose messages are divided then
    (alone,) = make_speakers(agents[:1], SpeakingSettings(), Accelerator())
    assert alone.thoughts is not None and alone.renderer_for("a").forgets
