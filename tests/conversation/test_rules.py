"""When a rollout ends, and how a team takes turns."""

import pytest

from trl_teamtr.conversation.router import RandomRouter, RoundRobinRouter
from trl_teamtr.conversation.rules import RolloutRules, TurnTaking, make_rules
from trl_teamtr.conversation.transcript import Message, Transcript


RULES = RolloutRules(RoundRobinRouter(4), max_turns=4)


@pytest.mark.parametrize(
    "rules, expected",
    [
        (RULES, "y"),
        (RolloutRules(RULES.router, max_turns=1), None),
        (RolloutRules(RULES.router, max_turns=4, stop_string="DONE"), None),
        (RolloutRules(RULES.router, max_turns=4, stop_string="done"), "y"),
        (RolloutRules(RULES.router, max_turns=4, stop_condition=lambda t: "DONE" in t.final_text), None),
        (RolloutRules(RULES.router, max_turns=4, stop_condition=lambda t: False), "y"),
    ],
)
def test_stop_conditions(rules, expected):
    assert rules.next_speaker(Transcript("a", ("x", "y"), messages=[Message("x", "I am DONE.")])) == expected


def test_stop_conditions_do_not_stop_a_rollout_before_it_began():
    rules = RolloutRules(RULES.router, 4, stop_string="", stop_condition=lambda t: True)
    assert rules.next_speaker(Transcript("a", ("x", "y"))) == "x"


def test_rules_of_the_options():
    rules = make_rules(TurnTaking(num_rounds=3, stop_string="DONE"), ["x", "y"])
    assert rules.max_turns == 6 and isinstance(rules.router, RoundRobinRouter) and rules.stop_string == "DONE"
    rules = make_rules(TurnTaking(max_turns=4, router="random"), ["x", "y"])
    assert rules.max_turns == 4 and isinstance(rules.router, RandomRouter)


def test_router_of_ones_own_goes_before_the_options():
    def router(transcript):
        return None

    assert make_rules(TurnTaking(router="random"), ["x"], router).router is router


@pytest.mark.parametrize("wrong", [{"router": "random"}, {"stop_condition": "DONE"}])
def test_what_is_no_function_is_refused(wrong):
    with pytest.raises(TypeError, match="must be a function of a transcript"):
        make_rules(TurnTaking(), ["x"], **wrong)
