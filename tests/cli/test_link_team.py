"""The demonstrations and the warm start of a team for LINK."""

from collections import Counter

import pytest
import torch

from trl_teamtr.cli import link_team
from trl_teamtr.cli.link_team import make_demonstrations, make_team, save_team
from trl_teamtr.conversation.rendering import ChatRenderer
from trl_teamtr.conversation.transcript import Message, Transcript
from trl_teamtr.tasks import link


def parse(row):
    """Digit, messages so far and the answer of a demonstration."""
    (turn,) = row["prompt"]
    question, digit, *messages = turn["content"].split("\n\n")
    assert turn["role"] == "user" and question == "?"
    (answer,) = row["completion"]
    assert answer["role"] == "assistant"
    return int(digit), messages, answer["content"]


def test_clean_demonstrations_speak_dialect_a():
    rows = make_demonstrations(num_agents=3, size=200, seed=0, noisy=False)
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
    rows = make_demonstrations(num_agents=4, size=30, seed=0, noisy=False, agent=2)
    assert {len(parse(row)[1]) for row in rows} == {2}


def dialect(letter, digit):
    """The dialect in which `letter` stands for `digit`: B swaps the letters in pairs."""
    return {"ABCDEF"[digit]: "A", "BADCFE"[digit]: "B"}.get(letter, "noise")


def test_noisy_demonstrations_write_a_and_read_b_four_times_in_five():
    """5 % of the symbols are uniform, so each dialect's own share is scaled by 0.95 and 0.05 / 6 is added."""
    size = 5000
    write, read = Counter(), Counter()
    for row in make_demonstrations(num_agents=2, size=size, seed=0, noisy=True, agent=1):
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
    row = make_demonstrations(num_agents=3, size=1, seed=0, noisy=False, agent=2)[0]
    digit, messages, _ = parse(row)
    transcript = Transcript(link.TASK, ("a", "b", "c"), private={"c": str(digit)})
    said = [Message(message[0], message[3:]) for message in messages]
    view = ChatRenderer(tokenizer, "c", None, [tokenizer.eos_token_id], {}).opening(transcript, said)
    assert view == tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)


def test_fit_makes_the_demonstrations_likelier():
    tokenizer = link.make_tokenizer()
    model = link.make_model(tokenizer, seed=0)
    rows = make_demonstrations(2, 32, seed=0, noisy=False)
    ids = tokenizer.apply_chat_template(rows[0]["prompt"] + rows[0]["completion"], return_dict=False)
    ids = torch.tensor([ids])

    def loss():
        with torch.no_grad():
            return model.eval()(ids, labels=ids).loss.item()

    before = loss()
    link_team.fit(model, tokenizer, rows, steps=2, learning_rate=3e-3, seed=0)
    assert loss() < before - 0.01


def test_make_team_warms_up_a_base_and_an_agent_for_each_position(monkeypatch):
    fits = []

    def fit(model, tokenizer, demonstrations, steps, learning_rate, seed):
        fits.append((steps, {len(parse(row)[1]) for row in demonstrations.select(range(200))}))
        with torch.no_grad():
            model.lm_head.weight.add_(1.0)

    monkeypatch.setattr(link_team, "fit", fit)
    agents = make_team(3, seed=0)
    assert [agent.name for agent in agents] == ["a", "b", "c"]
    assert fits == [(350, {0, 1, 2})] + [(120, {i}) for i in range(3)]
    initial = link.make_model(link.make_tokenizer(), seed=0).lm_head.weight
    # One step of the base and one of its own: no agent builds on another
    assert all(torch.allclose(agent.model.lm_head.weight, initial + 2.0) for agent in agents)
    assert len({agent.model.lm_head.weight.data_ptr() for agent in agents}) == 3
    assert all(agent.processing_class is agents[0].processing_class for agent in agents)


def test_saved_agents_load_again(monkeypatch, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(link_team, "fit", lambda *args: None)
    agents = make_team(2, seed=0)
    save_team(agents, str(tmp_path))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "b")
    assert torch.equal(model.lm_head.weight, agents[1].model.lm_head.weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "b").chat_template == link.CHAT_TEMPLATE
