"""
Resampled rollouts of a team with a remote member have the law of the updated team: against its exact distribution. The remote
member is a server over a tiny model, and its log-probabilities are known to the test alone.
"""

import pytest
from draft_cases import Case, count, key, p_value
from fake_endpoint import answer_directly, answering, enumerate_with, remote_agent
from tiny import make_team

from trl_teamtr.rollouts.drafts import Drafts


# Number of agents, of rounds, the router, the mode, and which agent is remote
CASES = [
    (3, 1, "round_robin", "speculative", 1),
    (2, 2, "round_robin", "speculative", 0),
    (2, 1, "random", "speculative", 1),
    (2, 2, "text", "speculative", 1),
    (2, 2, "text", "suffix", 0),
    (2, 1, "random", "suffix", 1),
]


@pytest.fixture
def endpoint():
    with answering() as server:
        yield server


def make_case(folder, server, agents=2, rounds=2, router="round_robin", mode="speculative", place=1):
    """Of a team in which the agent at `place` is remote."""
    team = make_team(agents)
    team[place] = remote_agent(server, team[place].name)
    return Case(folder, agents, rounds, router, "none", mode, team)


@pytest.mark.parametrize("agents, rounds, router, mode, place", CASES)
def test_resampled_rollouts_have_the_law_of_the_updated_team(
    tmp_path, monkeypatch, endpoint, agents, rounds, router, mode, place
):
    case, total = make_case(tmp_path, endpoint, agents, rounds, router, mode, place), 2000
    enumerate_with(endpoint, "xyz"[place], monkeypatch)
    answer_directly(endpoint, monkeypatch)
    assert p_value(count(case.rollouts(total)), case.law(monkeypatch)) > 0.001 / len(CASES) / 3
    kept = 0
    for number in range(2):  # the second meets drafts of drafts
        case.update(number % len(case.trainer.members), seed=number, known=number == 1)
        new, law = case.rollouts(total), case.law(monkeypatch)
        assert p_value(count(new), law) > 0.001 / len(CASES) / 3
        kept += new.tokens_kept
    assert kept > 0


def test_over_http_it_is_the_same_law(tmp_path, monkeypatch, endpoint):
    case = make_case(tmp_path, endpoint, rounds=1)
    enumerate_with(endpoint, "y", monkeypatch)
    case.rollouts(600)
    case.update(0, seed=0)
    assert p_value(count(case.rollouts(600)), case.law(monkeypatch)) > 1e-3


def test_the_test_can_tell(tmp_path, monkeypatch, endpoint):
    """Where the old message of the remote member is kept in another context, it fails."""
    case = make_case(tmp_path, endpoint, rounds=1)
    enumerate_with(endpoint, "y", monkeypatch)
    answer_directly(endpoint, monkeypatch)
    case.rollouts(4000)
    case.update(0, seed=0, scale=0.6)
    monkeypatch.setattr(Drafts, "_old_context", _as_now(Drafts._old_context))
    assert p_value(count(case.rollouts(4000)), case.law(monkeypatch)) < 1e-4


def _as_now(original):
    """The old context of a remote member is whatever it reads now: its message is kept in any."""

    class Anything(list):
        def __eq__(self, other):
            return True

        __hash__ = None

    return lambda self, name, *place: Anything() if name == "y" else original(self, name, *place)


def test_where_its_context_is_what_it_was_its_message_stays_and_nothing_is_asked(tmp_path, endpoint):
    case = make_case(tmp_path, endpoint)
    old = case.rollouts(100)
    case.update(0, seed=0, scale=0.0)
    asked = len(endpoint.bodies)
    assert asked == 200
    new = case.rollouts(100)
    assert [key(t) for t in new.transcripts] == [key(t) for t in old.transcripts]
    assert len(endpoint.bodies) == asked and new.tokens_decoded == 0


def test_where_its_context_has_changed_it_is_asked_again_with_what_is_said_now(tmp_path, endpoint):
    case = make_case(tmp_path, endpoint)
    old = case.rollouts(200)
    case.update(0, seed=0, scale=0.6)
    endpoint.bodies.clear()
    new = case.rollouts(200)
    changed, unchanged = 0, 0
    for before, after in zip(old.transcripts, new.transcripts, strict=True):
        if [m.text for m in before.messages[:1]] == [m.text for m in after.messages[:1]]:
            assert before.messages[1].text == after.messages[1].text  # in the same context, the same message
            unchanged += 1
        else:
            changed += 1
    assert changed > 20 and unchanged > 20
    first = [body for body in endpoint.bodies if len(body["messages"]) == 1]
    assert len(first) == changed
    assert sorted(body["messages"][0]["content"] for body in first) == sorted(
        f"au\n\nx: {after.messages[0].text}"
        for before, after in zip(old.transcripts, new.transcripts, strict=True)
        if before.messages[0].text != after.messages[0].text
    )


def test_what_it_does_not_read_may_change_and_its_message_stays(tmp_path, monkeypatch, endpoint):
    """Of the other agent, "u" ends a private thought: the remote member reads what follows, which is the same more often."""
    team = [*make_team(1), remote_agent(endpoint)]
    team[0].thinking_end = "u"
    case = Case(tmp_path, 2, 1, "round_robin", "none", "speculative", team)
    enumerate_with(endpoint, "y", monkeypatch)
    answer_directly(endpoint, monkeypatch)
    old = case.rollouts(2000)
    case.update(0, seed=0, scale=0.6)
    endpoint.bodies.clear()
    new = case.rollouts(2000)
    assert p_value(count(new), case.law(monkeypatch)) > 1e-3
    first = [
        (before.messages[0], after.messages[0]) for before, after in zip(old.transcripts, new.transcripts, strict=True)
    ]
    changed = sum(before.ids != after.ids for before, after in first)
    heard = sum(before.text != after.text for before, after in first)
    assert len(endpoint.bodies) == heard < 0.9 * changed
