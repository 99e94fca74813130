from collections import Counter

import pytest

from trl_teamtr.conversation.router import (
    RandomRouter,
    RoundRobinRouter,
    find_silent_agents,
    make_router,
    next_speaker,
)
from trl_teamtr.conversation.transcript import Message, Transcript


def speakers(router, agents, seed=0, limit=50):
    """Names of the speakers of a rollout, in order."""
    transcript = Transcript("task", agents, seed=seed)
    while len(transcript.messages) < limit and (name := router(transcript)) is not None:
        transcript.messages.append(Message(name, "text"))
    return [message.agent for message in transcript.messages]


@pytest.mark.parametrize("max_turns, expected", [(0, ""), (2, "ab"), (3, "abc"), (7, "abcabca")])
def test_round_robin_goes_in_team_order_until_max_turns(max_turns, expected):
    assert "".join(speakers(RoundRobinRouter(max_turns), ("a", "b", "c"))) == expected


def test_random_router_stops_at_max_turns():
    assert len(speakers(RandomRouter(5), ("a", "b"))) == 5


def test_random_router_answers_the_same_when_asked_again():
    transcript = Transcript("task", ("a", "b", "c"), seed=3)
    router = RandomRouter(5)
    assert len({router(transcript) for _ in range(20)}) == 1
    assert speakers(RandomRouter(30), ("a", "b", "c"), seed=3) == speakers(RandomRouter(30), ("a", "b", "c"), seed=3)


def test_random_router_depends_on_the_seed_and_the_turn():
    first, second = (speakers(RandomRouter(30), ("a", "b", "c"), seed=seed) for seed in (0, 1))
    assert first != second
    assert set(first) == set(second) == {"a", "b", "c"}


def test_random_router_is_uniform():
    counts = Counter()
    for seed in range(300):
        counts.update(speakers(RandomRouter(10), ("a", "b", "c"), seed=seed))
    # 3000 draws with p = 1/3: a standard deviation of 26
    assert sum(counts.values()) == 3000
    assert all(abs(counts[name] - 1000) < 4 * 26 for name in "abc")


@pytest.mark.parametrize("kind, cls", [("round_robin", RoundRobinRouter), ("random", RandomRouter)])
def test_make_router(kind, cls):
    router = make_router(kind, 4)
    assert type(router) is cls and router.max_turns == 4


def test_next_speaker_passes_on_names_and_none():
    transcript = Transcript("task", ("a", "b"))
    assert next_speaker(lambda t: "b", transcript) == "b"
    assert next_speaker(lambda t: None, transcript) is None


@pytest.mark.parametrize("answer", ["c", "", 0])
def test_next_speaker_refuses_an_unknown_name(answer):
    transcript = Transcript("task", ("a", "b"), messages=[Message("a", "text")])
    with pytest.raises(ValueError, match=f"answered {answer!r} at turn 1, .* one of a, b, or `None`"):
        next_speaker(lambda t: answer, transcript)


def test_round_robin_leaves_the_agents_after_max_turns_silent():
    assert find_silent_agents(RoundRobinRouter(2), ["a", "b", "c", "d"], ["task"], 2) == ["c", "d"]
    assert find_silent_agents(RoundRobinRouter(4), ["a", "b", "c", "d"], ["task"], 4) == []


def test_agent_called_on_one_of_the_prompts_is_not_silent():
    def router(transcript):
        return transcript.prompt if not transcript.messages else None

    assert find_silent_agents(router, ["a", "b", "c"], ["a", "c", "a"], 5) == ["b"]


def test_dry_run_stops_a_router_that_never_ends_and_uses_a_seed_per_prompt():
    seen = []

    def router(transcript):
        seen.append((transcript.seed, [message.text for message in transcript.messages]))
        return "a"

    assert find_silent_agents(router, ["a", "b"], ["task", "task"], 3) == ["b"]
    assert seen == [(seed, [""] * turn) for seed in (0, 1) for turn in range(3)]
