"""Rewards without a trainer are those that `GRPOTrainer` computes."""

import asyncio
import threading

import pytest
import torch
from accelerate import Accelerator
from tiny import make_team, make_tokenizer, make_trainer
from transformers import Qwen3Config, Qwen3ForSequenceClassification

from trl_teamtr import Message, Transcript
from trl_teamtr.returns.scorer import RewardScorer


def letters(completions, level, log_metric, **kwargs):
    log_metric("dropped", 1.0)
    return [completion.count("a") / 4 + each for completion, each in zip(completions, level, strict=True)]


async def length(completions, prompts, completion_ids, transcripts, trainer_state, **kwargs):
    await asyncio.sleep(0)
    assert [len(ids) for ids in completion_ids] == [len(said[-1]["content"]) + 1 for said in transcripts]
    return [None if prompt == "u" else float(len(c)) for c, prompt in zip(completions, prompts, strict=True)]


@pytest.fixture
def reward_model(tmp_path):
    config = Qwen3Config(
        vocab_size=3, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_labels=1
    )
    config.num_key_value_heads, config.head_dim, config.pad_token_id = 1, 8, 1
    torch.manual_seed(0)
    Qwen3ForSequenceClassification(config).save_pretrained(tmp_path / "reward")
    make_tokenizer().save_pretrained(tmp_path / "reward")
    return str(tmp_path / "reward")


ROWS = [{"prompt": prompt, "level": level} for level, prompt in enumerate(["a", "u", "aa", "ua"])]
TEXTS = ["a", "", "uau", "aa"]


def transcripts():
    said = [[Message("x", "u", (0, 1)), Message("y", text, (2,) * len(text) + (1,))] for text in TEXTS]
    return [Transcript(row["prompt"], ("x", "y"), messages=messages) for row, messages in zip(ROWS, said, strict=True)]


def test_scores_are_those_of_grpo(tmp_path, reward_model):
    funcs = [letters, length, reward_model]
    trainer = make_trainer(tmp_path / "run", make_team(2), reward_funcs=list(funcs), reward_weights=[1.0, 2.0, 3.0])
    scorer = RewardScorer(funcs, Accelerator(), weights=[1.0, 2.0, 3.0])
    expected = trainer.compute_returns(ROWS, transcripts())
    torch.testing.assert_close(scorer.score(ROWS, transcripts()), expected, atol=0, rtol=0)
    assert funcs[2] == reward_model and isinstance(scorer.reward_funcs[2], torch.nn.Module)
    assert len(set(expected.tolist())) == 4


def test_no_reward_is_nan_and_weights_are_one_each(tmp_path):
    scorer = RewardScorer([length], Accelerator())
    found = scorer.score(ROWS, transcripts())
    assert found.isnan().tolist() == [False, True, False, False] and found[2] == 3


def test_conversations_are_read_by_reward_models_through_their_template(reward_model):
    scorer = RewardScorer([reward_model], Accelerator(), chat_template_kwargs={"shout": True})
    tokenizer = scorer._tokenizers[0]
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% if shout %}u{% endif %}{% endfor %}"
    rows = [{"prompt": [{"role": "user", "content": "a"}]}]
    transcript = Transcript(rows[0]["prompt"], ("x",), messages=[Message("x", "aa", (2, 2, 1))])
    ids = torch.tensor([tokenizer("auaau", add_special_tokens=False)["input_ids"]])
    expected = scorer.reward_funcs[0](ids).logits[0, 0]
    assert scorer.score(rows, [transcript])[0].item() == pytest.approx(expected.item(), rel=1e-6)


def test_async_functions_share_one_loop():
    loops = []

    async def reward(completions, **kwargs):
        loops.append(asyncio.get_running_loop())
        return [0.0] * len(completions)

    scorer = RewardScorer([reward, reward], Accelerator())
    scorer.score(ROWS, transcripts())
    scorer.score(ROWS, transcripts())
    assert len(loops) == 4 and len(set(map(id, loops))) == 1
    assert sum(thread.name == "RewardScorer-AsyncLoop" for thread in threading.enumerate()) >= 1


def test_reward_model_that_returns_no_number_is_named(reward_model):
    scorer = RewardScorer([reward_model], Accelerator())
    with torch.no_grad():
        scorer.reward_funcs[0].score.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="The reward model .*reward' returned nan for row 0"):
        scorer.score(ROWS, transcripts())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"weights": [1.0]}, "2 reward functions, but `reward_weights` has 1"),
        ({"processing_classes": [None]}, "2 reward functions, but `reward_processing_classes` has 1"),
    ],
)
def test_as_many_weights_as_functions(arguments, message):
    with pytest.raises(ValueError, match=message):
        RewardScorer([letters, length], Accelerator(), **arguments)
