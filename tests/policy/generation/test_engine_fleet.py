"""A team on vLLM engines in its process, without a trainer: what it says, with which weights, and what it leaves."""

import random

import numpy as np
import pytest
import torch
from fake_engine import fake_engines
from policies import check_logps, shift
from sampled_law import LAWS, check_law
from vllm_teams import lora_team, make_engines, save_base, speakers_of

from trl_teamtr import Agent
from trl_teamtr.policy.backend import Request
from trl_teamtr.policy.drawing import Draw
from trl_teamtr.policy.generation import engine_fleet
from trl_teamtr.policy.participant import speak_together


CONTEXTS = [[2], [0, 2], [2, 2, 0, 2], [0], [2, 0]]


@pytest.fixture
def engines(monkeypatch):
    return fake_engines(monkeypatch)


@pytest.fixture
def base(tmp_path):
    return save_base(tmp_path / "base")


@pytest.fixture
def sleepy(monkeypatch):
    """Engines may sleep on the CPU of these tests, which real ones do not."""
    monkeypatch.setattr(engine_fleet, "check_engines", lambda *args: None)


def requests_of(*names, max_tokens=4):
    return [Request(name, context, max_tokens) for context in CONTEXTS for name in names]


def test_agents_of_one_turn_share_a_batch_each_with_its_weights_and_its_engine(tmp_path, base, engines, monkeypatch):
    monkeypatch.setattr(engines, "mixes_rows", True)
    agents = [*lora_team(base, "xy", generation_kwargs={"temperature": 0.7}), Agent("f", base, trainable=False)]
    agents.append(Agent("w", save_base(tmp_path / "other", seed=4)))
    agents.append(Agent("v", base))  # all weights, of the same base
    speakers = speakers_of(agents)
    fleet = make_engines(speakers, tmp_path / "sync")
    for speaker in speakers[3:]:
        shift(speaker)
    requests = requests_of("w", "f", "x", "y", "v")
    check_logps(speakers, requests, fleet.generate(requests))
    adapters, whole, other = engines.made
    assert [name.partition("-")[2] for name in adapters.batches[-1]] == ["f-v1", "x-v1", "y-v1"] * 5
    assert whole.batches[-1] == other.batches[-1] == [None] * 5
    assert (adapters.reloads, whole.reloads, other.reloads) == (0, 1, 1)
    messages = speak_together([speaker.begin(CONTEXTS) for speaker in speakers])
    assert [[message.agent for message in own] for own in messages] == [[name] * 5 for name in "xyfwv"]


def test_a_frozen_agent_without_neighbours_speaks_with_the_model_itself(tmp_path, base, engines):
    speakers = speakers_of([Agent(name, base, trainable=False) for name in "fg"])
    fleet = make_engines(speakers, tmp_path / "sync")
    requests = requests_of("f", "g")
    check_logps(speakers, requests, fleet.generate(requests))
    (engine,) = engines.made
    assert "enable_lora" not in engine.arguments and engine.reloads == 0 and engine.batches[-1] == [None] * 10


def test_weights_are_published_before_an_agent_speaks_if_they_have_changed(tmp_path, base, engines):
    speakers = speakers_of([*lora_team(base), Agent("w", save_base(tmp_path / "other", seed=4))])
    fleet = make_engines(speakers, tmp_path / "sync")
    adapters, whole = engines.made
    assert adapters.loads == [] and whole.reloads == 0
    fleet.generate(requests_of("x", "w"))
    fleet.generate(requests_of("x", "w"))
    assert (len(adapters.loads), whole.reloads) == (1, 1)
    for speaker in speakers:
        shift(speaker)
        fleet.publish(speaker.name)
        fleet.publish(speaker.name)
    requests = requests_of("x", "y")
    check_logps(speakers, requests, fleet.generate(requests))
    assert [len(adapters.versions(name)) for name in "xy"] == [2, 1] and whole.reloads == 1
    requests = requests_of("w", "x")
    check_logps(speakers, requests, fleet.generate(requests))
    assert whole.reloads == 2 and len(adapters.adapters) == adapters.held == 2


def states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_seeds_are_drawn_from_the_state_that_a_checkpoint_keeps_and_nothing_else_is(tmp_path, base, engines):
    speakers, requests = speakers_of(lora_team(base, "x")), [Request("x", [2], 6)] * 30
    before = states()
    fleet = make_engines(speakers, tmp_path / "sync")
    assert states() == before
    random.seed(5)
    first = fleet.generate(requests)
    drawn = random.getstate()
    assert states()[1:] == before[1:]
    random.seed(5)
    assert all(random.getrandbits(63) for _ in requests) and random.getstate() == drawn
    second = fleet.generate(requests)
    random.seed(5)
    fleet.publish("x")  # a resumed run publishes anew, and draws the same
    assert [w.ids for w in fleet.generate(requests)] == [w.ids for w in first]
    assert [w.ids for w in second] != [w.ids for w in first]
    assert len({tuple(w.ids) for w in first}) > 5  # equal contexts
    assert len(set(engines.made[0].seeds)) == 60 + 8  # and those of the checks


@pytest.mark.parametrize("fields", LAWS.values(), ids=list(LAWS))
def test_messages_have_the_law_that_they_are_verified_against(tmp_path, engines, fields):
    (speaker,) = speakers_of(lora_team(save_base(tmp_path / "base", size=4), "x"), max_completion_length=2, **fields)
    check_law(speaker, make_engines([speaker], tmp_path / "sync"))


def test_an_engine_that_speaks_with_its_base_instead_is_found(tmp_path, base, engines, monkeypatch):
    monkeypatch.setattr(engines, "wrong_adapter", True)
    fleet = make_engines(speakers_of(lora_team(base)), tmp_path / "sync")
    with pytest.raises(
        RuntimeError, match="'x': after .* of its vLLM engine differ .*`vllm_max_logp_difference=0.0001`"
    ):
        fleet.generate(requests_of("x"))
    unchecked = make_engines(speakers_of(lora_team(base)), tmp_path / "a", max_logp_difference=None)
    assert len(unchecked.generate(requests_of("x"))) == 5


def test_engines_sleep_until_an_agent_of_theirs_speaks(tmp_path, base, engines, sleepy):
    speakers = speakers_of([*lora_team(base), Agent("w", save_base(tmp_path / "other", seed=4))])
    fleet = make_engines(speakers, tmp_path / "sync", sleeps=True)
    adapters, whole = engines.made
    assert adapters.asleep and whole.asleep
    requests = requests_of("x", "y")
    fleet.generate(requests)
    assert not adapters.asleep and whole.asleep
    fleet.rest()
    fleet.rest()
    assert adapters.asleep and whole.asleep and (adapters.naps, whole.naps) == (2, 1)
    check_logps(speakers, requests, fleet.generate(requests))
    assert [len(adapters.versions(name)) for name in "xy"] == [2, 2] and adapters.held == 2  # published anew
    fleet.close()
    assert adapters.asleep and not (tmp_path / "sync").exists()
    check_logps(speakers, requests_of("y", "w"), fleet.generate(requests_of("y", "w")))
    assert len(adapters.adapters) == 1 and whole.naps == 1


def test_an_engine_that_has_lost_its_base_in_sleep_is_found(tmp_path, base, engines, sleepy, monkeypatch):
    monkeypatch.setattr(engines, "forgets", True)
    fleet = make_engines(speakers_of([Agent("f", base, trainable=False)]), tmp_path / "sync", sleeps=True)
    with pytest.raises(RuntimeError, match="'f': after its weights were published"):
        fleet.generate(requests_of("f"))


def test_nothing_rests_unless_it_is_told_to(tmp_path, base, engines):
    fleet = make_engines(speakers_of(lora_team(base)), tmp_path / "sync")
    fleet.rest()
    assert not engines.made[0].asleep


def test_nothing_is_left_and_an_agent_may_speak_again(tmp_path, base, engines):
    speakers = speakers_of(lora_team(base))
    fleet = make_engines(speakers, tmp_path / "sync")
    fleet.generate(requests_of("x", "y"))
    (engine,) = engines.made
    assert len(engine.adapters) == 2 and len(list((tmp_path / "sync").iterdir())) == 2
    fleet.close()
    assert not engine.adapters and not (tmp_path / "sync").exists()
    fleet.generate(requests_of("x"))
    assert len(engine.adapters) == 1 and len(engine.versions("x")) == 2


def test_versions_leave_one_adapter_and_one_folder(tmp_path, base, engines):
    fleet = make_engines(speakers_of(lora_team(base, "x")), tmp_path / "sync", max_logp_difference=None)
    for _ in range(12):
        fleet.publish("x")
        fleet.generate([Request("x", [2], 1)])
    (engine,) = engines.made
    assert engine.held == len(engine.adapters) == 1 and len(list((tmp_path / "sync").iterdir())) == 1
    assert len(engine.versions("x")) == 12


def test_messages_with_a_draw_of_their_own_and_too_long_ones_are_refused(tmp_path, base, engines):
    fleet = make_engines(speakers_of(lora_team(base, "x")), tmp_path / "sync")
    with pytest.raises(ValueError, match="cannot be drawn apart .*through vLLM.*`Team.from_pretrained`"):
        fleet.generate([Request("x", [2], 4, Draw(seed=1))])
    fleet.generate(requests_of("x"))
    engines.made[0].arguments["max_model_len"] = 3
    with pytest.raises(ValueError, match="'x' was to write 4 tokens.*larger `vllm_max_model_length`"):
        fleet.generate([Request("x", [2, 2], 4)] * 8)


def test_sampling_that_vllm_does_otherwise_is_refused_before_an_engine_is_made(tmp_path, base, engines):
    with pytest.raises(ValueError, match="'x' samples with min_p=0.1 and top_p=0.9"):
        make_engines(speakers_of(lora_team(base), min_p=0.1, top_p=0.9), tmp_path / "sync")
    assert engines.made == []
