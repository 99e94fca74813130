import pytest
import torch

from trl_teamtr.tasks import link


def say(*texts):
    return [
        {"role": "assistant", "name": name, "content": text} for name, text in zip("abcdefgh", texts, strict=False)
    ]


# The dataset and the reward


def test_rows_hold_a_private_digit_for_each_agent():
    dataset = link.make_dataset(num_agents=4, size=50, seed=0)
    assert dataset.column_names == ["prompt", "agent_prompts", "digits"] and len(dataset) == 50
    for row in dataset:
        assert row["prompt"] == [{"role": "user", "content": "?"}]
        assert row["agent_prompts"] == {name: str(d) for name, d in zip("abcd", row["digits"], strict=True)}
    assert {d for row in dataset["digits"] for d in row} == set(range(6))


def test_dataset_is_a_function_of_the_seed():
    first, again, other = (link.make_dataset(3, 20, seed)["digits"] for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    "messages, reward",
    [
        (["0A", "3B", "1C"], 1.0),
        (["0A", "3B", "2C"], 0.5),
        (["3A", "0B", "1C"], 0.5),
        (["3A", "1B", "5C"], 0.0),
        (["0A", "3B"], 0.5),
        (["0A"], 0.0),
        ([], 0.0),
        (["0A", "", "1"], 0.5),
    ],
)
def test_reward_is_the_share_of_links_that_were_read(messages, reward):
    assert link.link_reward(transcripts=[say(*messages)], digits=[[3, 1, 5]], prompts=["?"]) == [reward]


def test_reward_of_a_batch():
    assert link.link_reward([say("0A", "2B"), say("0A", "3B")], digits=[[2, 4], [2, 4]]) == [1.0, 0.0]


# The tiny models


def test_tokenizer_has_one_token_per_character_and_role():
    tokenizer = link.make_tokenizer()
    turns = [{"role": "user", "content": "?\n3\na: 0F"}, {"role": "assistant", "content": "3B"}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    expected = "<|user|> ? \n 3 \n a : _ 0 F <|end|> <|assistant|> 3 B <|end|> <|assistant|>".split(" ")
    assert tokenizer.convert_ids_to_tokens(ids) == [" " if token == "_" else token for token in expected]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "?\n3\na: 0F3B"
    assert tokenizer.unk_token_id not in tokenizer("012345ABCDEFabcdefgh: \n?")["input_ids"]


def test_model_is_small_and_a_function_of_the_seed():
    tokenizer = link.make_tokenizer()
    first, again, other = (link.make_model(tokenizer, seed).state_dict() for seed in (0, 0, 1))
    assert 50_000 < sum(weight.numel() for weight in first.values()) < 150_000
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
    assert first["lm_head.weight"].shape[0] == len(tokenizer)


# Demonstrations


def test_newlines_are_tokens_of_their_own():
    tokenizer = link.make_tokenizer()
    assert tokenizer.tokenize("?\n\n3") == ["?", "\n", "\n", "3"]


@pytest.mark.parametrize("num_agents", [1, 9])
def test_chain_that_is_too_short_or_too_long_is_refused(num_agents):
    with pytest.raises(ValueError, match="chain of 2 to 8 agents"):
        link.make_dataset(num_agents, 1, 0)


def test_reward_of_several_rounds_is_that_of_the_first():
    messages = [{"content": text} for text in ("0A", "2B", "2A", "4B")]
    assert link.link_reward([messages], [[2, 4]]) == [1.0]
