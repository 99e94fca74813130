import pytest
import torch
from accelerate import Accelerator
from families import LONGROPE, make_family
from tiny import make_team, make_tokenizer, make_trainer

from trl_teamtr import Agent
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
from trl_teamtr.checks.padding import check_padding
from trl_teamtr.policy.making import make_speakers


def make_speaker(kind, max_context_length=None, **fields):
    ids = {"eos_token_id": 1, "pad_token_id": 1, "bos_token_id": None}
    agent = Agent("solver", make_family(kind, seed=0, **ids, **fields).eval(), processing_class=make_tokenizer())
    settings = SpeakingSettings(SamplingSettings(max_completion_length=4), max_context_length=max_context_length)
    return make_speakers([agent], settings, Accelerator())[0]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom", "mamba", "qwen3_moe"])
def test_real_architectures_pass_and_no_generator_advances(kind):
    speaker, state = make_speaker(kind), torch.get_rng_state()
    check_padding(speaker)
    assert torch.equal(torch.get_rng_state(), state)


def test_positions_counted_from_the_first_column_are_found():
    speaker = make_speaker("gpt2")
    speaker.policy.model._forward_pre_hooks.clear()
    with pytest.raises(
        ValueError, match=r"agent 'solver' .* -\d\.\d+ nats per token alone, -\d\.\d+ behind 32 padding"
    ):
        check_padding(speaker)


def test_padding_that_leaks_into_a_convolution_is_found_though_the_embedding_of_padding_is_zero():
    """It leaks as soon as the embedding, or the bias of the convolution, is trained: the fresh model seems right."""
    speaker = make_speaker("recurrent_gemma")
    model = speaker.policy.model
    assert not model.get_input_embeddings().weight[model.config.pad_token_id].any()
    with pytest.raises(ValueError, match="behind 32 padding tokens"):
        check_padding(speaker)


def test_scaling_by_the_longest_row_is_refused_unless_no_row_reaches_it():
    with pytest.raises(ValueError, match=r"beside a row of 64 tokens.*Set `max_context_length` to at most 16"):
        check_padding(make_speaker("phi3", **LONGROPE))
    check_padding(make_speaker("phi3", max_context_length=16, **LONGROPE))


def test_a_model_that_samples_from_another_distribution_is_found(monkeypatch):
    speaker = make_speaker("llama")
    model = speaker.policy.model
    original = model.generate

    def generate(**kwargs):
        output = original(**kwargs)
        output.logits = tuple(2 * step for step in output.logits)
        return output

    monkeypatch.setattr(model, "generate", generate)
    with pytest.raises(ValueError, match="nats per token when it is sampled, .* when it is scored"):
        check_padding(speaker)


def test_a_run_is_checked_before_anything_is_generated(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2))
    trainer.members[1].model.lm_head.register_forward_hook(
        lambda module, args, output: output * (1 + torch.rand(()))  # another policy at each call
    )
    with pytest.raises(ValueError, match="The model of agent 'y' gives the same row another probability"):
        trainer.train()
    assert trainer.state.global_step == 0 and not trainer.state.log_history
