from collections import Counter

import pytest
import torch

from trl_teamtr.rendering import ChatRenderer
from trl_teamtr.tasks import link
from trl_teamtr.transcript import Message, Transcript


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


def parse(row):
    """Digit, messages so far and the answer of a demonstration."""
    (turn,) = row["prompt"]
    question, digit, *messages = turn["content"].split("\n\n")
    assert turn["role"] == "user" and question == "?"
    (answer,) = row["completion"]
    assert answer["role"] == "assistant"
    return int(digit), messages, answer["content"]


def test_clean_demonstrations_speak_dialect_a():
    rows = link.make_demonstrations(num_agents=3, size=200, seed=0, noisy=False)
    positions = Counter()
    for row in rows:
        digit, messages, (reading, letter) = parse(row)
        positions[len(messages)] += 1
        assert [message[:3] for message in messages] == ["a: ", "b: "][: len(messages)]
        previous = [message[-1] for message in messages]
        assert letter == "ABCDEF"[digit]
        assert reading == (str("ABCDEF".index(previous[-1])) if previous else "0")
    assert set(positions) == {0, 1, 2} and min(positions.values()) > 40


def test_demonstrations_of_one_agent():
    rows = link.make_demonstrations(num_agents=4, size=30, seed=0, noisy=False, agent=2)
    assert {len(parse(row)[1]) for row in rows} == {2}


def dialect(letter, digit):
    """The dialect in which `letter` stands for `digit`: B swaps the letters in pairs."""
    return {"ABCDEF"[digit]: "A", "BADCFE"[digit]: "B"}.get(letter, "noise")


def test_noisy_demonstrations_write_a_and_read_b_four_times_in_five():
    """5 % of the symbols are uniform, so each dialect's own share is scaled by 0.95 and 0.05 / 6 is added."""
    size = 5000
    write, read = Counter(), Counter()
    for row in link.make_demonstrations(num_agents=2, size=size, seed=0, noisy=True, agent=1):
        digit, (message,), (reading, letter) = parse(row)
        write[dialect(letter, digit)] += 1
        read[dialect(message[-1], int(reading))] += 1
    mostly, rarely = 0.8 * 0.95 + 0.05 / 6, 0.2 * 0.95 + 0.05 / 6
    # Four standard deviations of a share of 5000
    assert write["A"] / size == pytest.approx(mostly, abs=0.024)
    assert write["B"] / size == pytest.approx(rarely, abs=0.024)
    assert read["B"] / size == pytest.approx(mostly, abs=0.024)
    assert read["A"] / size == pytest.approx(rarely, abs=0.024)


def test_demonstration_is_what_the_agent_reads_in_a_rollout():
    tokenizer = link.make_tokenizer()
    row = link.make_demonstrations(num_agents=3, size=1, seed=0, noisy=False, agent=2)[0]
    digit, messages, _ = parse(row)
    transcript = Transcript(link.TASK, ("a", "b", "c"), private={"c": str(digit)})
    said = [Message(message[0], message[3:]) for message in messages]
    view = ChatRenderer(tokenizer, "c", None, [tokenizer.eos_token_id], {}).opening(transcript, said)
    assert view == tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)


# The warm-up


def test_fit_makes_the_demonstrations_likelier(tmp_path):
    tokenizer = link.make_tokenizer()
    model = link.make_model(tokenizer, seed=0)
    rows = link.make_demonstrations(2, 32, seed=0, noisy=False)
    ids = tokenizer.apply_chat_template(rows[0]["prompt"] + rows[0]["completion"], return_dict=False)
    ids = torch.tensor([ids])

    def loss():
        with torch.no_grad():
            return model.eval()(ids, labels=ids).loss.item()

    before = loss()
    link._fit(model, tokenizer, rows, steps=2, learning_rate=3e-3, output_dir=str(tmp_path), seed=0)
    assert loss() < before - 0.01
    assert not list(tmp_path.iterdir())


def test_make_team_warms_up_a_base_and_an_agent_for_each_position(monkeypatch, tmp_path):
    fits = []

    def fit(model, tokenizer, demonstrations, steps, learning_rate, output_dir, seed):
        fits.append((steps, {len(parse(row)[1]) for row in demonstrations.select(range(200))}, output_dir))
        with torch.no_grad():
            model.lm_head.weight.add_(1.0)

    monkeypatch.setattr(link, "_fit", fit)
    agents = link.make_team(3, str(tmp_path), seed=0)
    assert [agent.name for agent in agents] == ["a", "b", "c"]
    directory = str(tmp_path)
    assert fits == [(350, {0, 1, 2}, directory)] + [(120, {i}, directory) for i in range(3)]
    initial = link.make_model(link.make_tokenizer(), seed=0).lm_head.weight
    # One step of the base and one of its own: no agent builds on another
    assert all(torch.allclose(agent.model.lm_head.weight, initial + 2.0) for agent in agents)
    assert len({agent.model.lm_head.weight.data_ptr() for agent in agents}) == 3
    assert all(agent.processing_class is agents[0].processing_class for agent in agents)


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
