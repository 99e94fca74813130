"""A team on vLLM servers, without a trainer: what it says, with which weights, and what it survives."""

import random

import pytest
from fake_vllm import serving
from policies import check_logps, shift
from sampled_law import LAWS, check_law
from vllm_teams import lora_team, make_fleet, save_base, speakers_of

from trl_teamtr import Agent
from trl_teamtr.policy.backend import Request
from trl_teamtr.policy.generation.client import ServerClient
from trl_teamtr.policy.participant import speak_together


CONTEXTS = [[2], [0, 2], [2, 2, 0, 2], [0], [2, 0]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Servers that were lost are looked for more often than in a run."""
    monkeypatch.setattr(ServerClient, "poll_interval", 0.05)


@pytest.fixture
def base(tmp_path):
    return save_base(tmp_path / "base")


def ask(fleet, *names, max_tokens=4):
    return fleet.generate([Request(name, context, max_tokens) for name in names for context in CONTEXTS])


def test_agents_of_one_turn_are_asked_together_each_with_its_weights_and_its_server(tmp_path, base):
    agents = [*lora_team(base, "xy", generation_kwargs={"temperature": 0.7}), Agent("f", base, trainable=False)]
    other = save_base(tmp_path / "other", seed=4)
    with serving(base, mixes_rows=True) as server, serving(other) as own:
        agents.append(Agent("w", other, vllm_server_base_url=own.url + "/"))
        speakers = speakers_of(agents)
        fleet = make_fleet(speakers, server.url, tmp_path / "sync")
        shift(speakers[3])
        requests = [Request(name, context, 4) for context in CONTEXTS for name in "wfxy"]
        answers = fleet.generate(requests)
        check_logps(speakers, requests, answers)
        asked = {body["model"] for body in server.sent("/v1/completions")}
        assert {name.partition("-")[2] for name in asked} == {"x-v1", "y-v1", "f-v1"}
        assert {body["model"] for body in own.sent("/v1/completions")} == {other}
        assert len(own.sent("/collective_rpc")) == 1 and server.sent("/collective_rpc") == []
        messages = speak_together([speaker.begin(CONTEXTS) for speaker in speakers])
        assert [[message.agent for message in own] for own in messages] == [[name] * 5 for name in "xyfw"]


def test_a_frozen_agent_without_neighbours_asks_for_the_model_itself(tmp_path, base):
    with serving(base, config={"lora_config": None}, lora_updating=False) as server:
        speakers = speakers_of([Agent(name, base, trainable=False) for name in "fg"])
        fleet = make_fleet(speakers, server.url, tmp_path / "sync")
        ask(fleet, "f", "g")
        assert {path for path, _ in server.posts} == {"/v1/completions"}
        assert {body["model"] for body in server.sent("/v1/completions")} == {base}


def test_weights_are_published_before_an_agent_speaks_if_they_have_changed(tmp_path, base):
    with serving(base) as server:
        speakers = speakers_of([*lora_team(base), Agent("f", base, trainable=False)])
        fleet = make_fleet(speakers, server.url, tmp_path / "sync")
        assert server.posts == []
        ask(fleet, "x")
        ask(fleet, "x", "f")
        assert len(server.versions("x")) == 1 and server.versions("y") == []
        shift(speakers[0])
        fleet.publish("x")
        fleet.publish("x")
        ask(fleet, "y")
        assert len(server.versions("x")) == 1
        requests = [Request(name, context, 4) for name in "xy" for context in CONTEXTS]
        check_logps(speakers, requests, fleet.generate(requests))
        assert [len(server.versions(name)) for name in "xy"] == [2, 1] and server.held == 4


def test_seeds_are_drawn_from_the_state_that_a_checkpoint_keeps(tmp_path, base):
    with serving(base) as server:
        fleet = make_fleet(speakers_of(lora_team(base, "x")), server.url, tmp_path / "sync")
        requests = [Request("x", [2], 6)] * 30
        random.seed(5)
        first = fleet.generate(requests)
        second = fleet.generate(requests)
        random.seed(5)
        fleet.publish("x")  # a resumed run publishes anew, and draws the same
        assert [w.ids for w in fleet.generate(requests)] == [w.ids for w in first]
        assert [w.ids for w in second] != [w.ids for w in first]
        assert len({tuple(w.ids) for w in first}) > 5  # equal contexts
        seeds = [body["seed"] for body in server.sent("/v1/completions")]
        assert len(set(seeds)) == 60 + 8  # and those of the checks


@pytest.mark.parametrize("fields", LAWS.values(), ids=list(LAWS))
def test_messages_have_the_law_that_they_are_verified_against(tmp_path, fields):
    base = save_base(tmp_path / "base", size=4)
    with serving(base) as server:
        (speaker,) = speakers_of(lora_team(base, "x"), max_completion_length=2, **fields)
        check_law(speaker, make_fleet([speaker], server.url, tmp_path / "sync", timeout=60.0))


def test_a_turn_is_repeated_once_the_server_is_back(tmp_path, base):
    with serving(base) as server:
        speakers = speakers_of(lora_team(base))
        fleet = make_fleet(speakers, server.url, tmp_path / "sync", max_logp_difference=None)
        random.seed(3)
        undisturbed = ask(fleet, "x", "y")
        server.dies_after = server.completed + 4
        random.seed(3)
        with pytest.warns(UserWarning, match=f"The turn is repeated .* vLLM server at {server.url}: agent '.' got no"):
            assert ask(fleet, "x", "y") == undisturbed
        assert [len(server.versions(name)) for name in "xy"] == [2, 2]
        assert server.completed >= 10 + 5 + 10


def test_a_server_that_comes_back_otherwise_ends_the_run_with_the_flag(tmp_path, base):
    with serving(base) as server:
        fleet = make_fleet(speakers_of(lora_team(base)), server.url, tmp_path / "sync")
        ask(fleet, "x")
        server.dies_after, server.config = server.completed, {"lora_config": {"max_loras": 1}}
        with pytest.warns(UserWarning, match="repeated"), pytest.raises(RuntimeError, match="`--max-loras 3`"):
            ask(fleet, "x")


def test_a_server_of_whole_weights_that_restarts_between_turns_gets_them_again(tmp_path, base):
    """It knows the name, so that no request would fail."""
    with serving(base) as server:
        speakers = speakers_of([Agent("w", base)])
        fleet = make_fleet(speakers, server.url, tmp_path / "sync")
        shift(speakers[0])
        requests = [Request("w", context, 4) for context in CONTEXTS]
        for restarts in range(3):
            check_logps(speakers, requests, fleet.generate(requests))
            check_logps(speakers, requests, fleet.generate(requests))
            assert len(server.sent("/collective_rpc")) == 1 + restarts
            server.restarts = False
            server.die()
            server.rise()


def test_a_server_that_has_lost_an_adapter_gets_it_again(tmp_path, base):
    with serving(base) as server:
        fleet = make_fleet(speakers_of(lora_team(base)), server.url, tmp_path / "sync")
        ask(fleet, "x", "y")
        del server.adapters[server.versions("y")[-1]]
        with pytest.warns(UserWarning, match="agent 'y' got no message.* does not exist"):
            assert len(ask(fleet, "x", "y")) == 10
        assert len(server.versions("y")) == 2 and len(server.adapters) == 2


def test_an_answer_that_is_late_is_asked_for_again(tmp_path, base):
    with serving(base) as server:
        fleet = make_fleet(speakers_of(lora_team(base)), server.url, tmp_path / "sync", timeout=1.0)
        ask(fleet, "x")
        server.delays = [2.0]
        with pytest.warns(UserWarning, match="The turn is repeated.*ReadTimeout"):
            assert len(ask(fleet, "x")) == 5


def test_a_server_that_stays_away_ends_the_run(tmp_path, base):
    with serving(base, restarts=False) as server:
        fleet = make_fleet(speakers_of(lora_team(base)), server.url, tmp_path / "sync", timeout=0.5)
        ask(fleet, "x")
        server.dies_after = server.completed + 1
        with (
            pytest.warns(UserWarning, match="repeated"),
            pytest.raises(
                ConnectionError, match="has not come back as it was: .*No vLLM server answered .* within 0.5 seconds"
            ),
        ):
            ask(fleet, "x")
        fleet.close()  # without the server too
        assert not (tmp_path / "sync").exists()


def test_a_server_that_dies_twice_in_a_turn_ends_the_run(tmp_path, base):
    with serving(base) as server:
        fleet = make_fleet(speakers_of(lora_team(base)), server.url, tmp_path / "sync")
        ask(fleet, "x")
        server.dies_after, rise = server.completed + 1, server.rise

        def rise_to_die():
            server.dies_after = server.completed + 1
            rise()

        server.rise = rise_to_die
        with pytest.warns(UserWarning, match="repeated"), pytest.raises(ConnectionError, match="got no message"):
            ask(fleet, "x")


def test_what_no_repetition_mends_ends_the_run_at_once(tmp_path, base):
    with serving(base, config={"model_config": {"max_model_len": 128}}) as server:
        fleet = make_fleet(speakers_of(lora_team(base)), server.url, tmp_path / "sync")
        ask(fleet, "x")
        server.config["model_config"]["max_model_len"] = 3
        with pytest.raises(
            RuntimeError, match="refused a request: agent 'x' got no message.*larger `--max-model-len`"
        ):
            fleet.generate([Request("x", [2, 2], 4)] * 8)
        with pytest.raises(RuntimeError, match="refused a request: .*400: .*maximum context length is 3 tokens"):
            fleet.generate([Request("x", [2, 2, 0], 4)])
        assert len(server.versions("x")) == 1


def test_a_folder_that_the_server_does_not_see_is_named(tmp_path, base, monkeypatch):
    with serving(base) as server:
        fleet = make_fleet(speakers_of(lora_team(base)), server.url, tmp_path / "sync")
        monkeypatch.setattr("fake_vllm.os.path.isfile", lambda path: False)
        with pytest.raises(
            RuntimeError, match="agent 'x' could not be published .`vllm_sync_dir` is '.*sync', which the"
        ):
            ask(fleet, "x")


def test_a_server_that_serves_the_base_instead_is_found(tmp_path, base):
    with serving(base, wrong_adapter=True) as server:
        fleet = make_fleet(speakers_of(lora_team(base)), server.url, tmp_path / "sync")
        with pytest.raises(
            RuntimeError, match="'x': after its weights were published.*`vllm_max_logp_difference=0.0001`"
        ):
            ask(fleet, "x")
        unchecked = make_fleet(speakers_of(lora_team(base)), server.url, tmp_path / "a", max_logp_difference=None)
        assert len(ask(unchecked, "x")) == 5


def test_nothing_is_left_and_an_agent_may_speak_again(tmp_path, base):
    with serving(base) as server:
        fleet = make_fleet(speakers_of(lora_team(base)), server.url, tmp_path / "sync")
        ask(fleet, "x", "y")
        fleet.close()
        assert not server.adapters and not (tmp_path / "sync").exists() and server.missing == []
        ask(fleet, "x")
        assert list(server.adapters) == server.versions("x")[-1:] and len(server.versions("x")) == 2


def test_sampling_that_a_server_does_otherwise_is_refused_before_it_is_asked(tmp_path, base):
    speakers = speakers_of(lora_team(base), min_p=0.1, top_p=0.9)
    with pytest.raises(ValueError, match="'x' samples with min_p=0.1 and top_p=0.9"):
        make_fleet(speakers, "http://127.0.0.1:9", tmp_path / "sync")


def test_fifty_versions_leave_one_adapter_and_two_folders(tmp_path, base):
    with serving(base) as server:
        fleet = make_fleet(speakers_of(lora_team(base, "x")), server.url, tmp_path / "sync", max_logp_difference=None)
        for _ in range(50):
            fleet.publish("x")
            fleet.generate([Request("x", [2], 1)])
        assert server.held == 2 and len(server.adapters) == 1 and len(list((tmp_path / "sync").iterdir())) == 2
