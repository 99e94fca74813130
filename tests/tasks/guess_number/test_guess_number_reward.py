import pytest

from trl_teamtr.tasks.guess_number.reward import extract_number, guess_number_reward
from trl_teamtr.tasks.loading import default_reward, load_reward


@pytest.mark.parametrize(
    "text, number",
    [
        ("12", "12"),
        ("It is 30, no, 12.", "12"),
        ("12 of 4", "12"),
        ("123", None),
        ("1 2", None),
        ("14", None),
        ("", None),
        ("The number is **21**", "21"),
    ],
)
def test_number_is_the_last_word_that_may_be_one(text, number):
    assert extract_number(text, 2, "0123") == number


def test_reward_reads_the_last_message():
    completions = [[{"content": "12"}, {"content": "30"}], [{"content": "30"}, {"content": "12"}], "12", "21", ""]
    rewards = guess_number_reward(completions, secret=["12"] * 5, alphabet=["0123"] * 5, prompts=None)
    assert rewards == [0.0, 1.0, 1.0, 0.0, 0.0]


def test_reward_comes_with_the_dataset():
    assert load_reward(default_reward("guess_number")) is guess_number_reward
