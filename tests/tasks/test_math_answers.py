"""The scorer of expressions, and the reader of votes."""

from trl_teamtr.tasks.math_answers import math_reward, read_answer


def test_a_reference_that_cannot_be_read_does_not_apply():
    assert math_reward(["\\boxed{1}", "\\boxed{1}"], ["", "1"]) == [None, 1.0]


def test_the_last_message_of_a_team_is_the_answer():
    said = [{"role": "assistant", "content": "\\boxed{1}"}, {"role": "assistant", "content": "\\boxed{2}"}]
    assert math_reward([said], ["2"]) == [1.0]


def test_equal_answers_are_one_vote():
    votes = {
        read_answer(text, {})
        for text in ("\\boxed{\\frac{1}{2}}", "so $\\boxed{1/2}$", "<think>\\boxed{3}</think>\\boxed{0.5}")
    }
    assert votes <= {"1/2", "0.500000000000000", "0.5"} and read_answer("nothing here", {}) == ""
