"""AR-Bench's guess-a-number: its file, answers by hand, and the game."""

import json

import pytest

from trl_teamtr.tasks import arbench_gn
from trl_teamtr.tasks.arbench_gn import NumberGame


@pytest.mark.parametrize("content", [["8362", "1058"], [{"number": "8362"}, {"number": "1058"}]])
def test_columns(tmp_path, content):
    (tmp_path / "data" / "gn").mkdir(parents=True)
    file = tmp_path / "data" / "gn" / "test.json"
    file.write_text(json.dumps(content))
    for path in (tmp_path, file):
        rows = arbench_gn.make_dataset(str(path))
        assert rows["secret"][:] == ["8362", "1058"] and set(rows["alphabet"]) == {"0123456789"}
        assert "4 different digits out of 0123456789" in rows[0]["prompt"][0]["content"]


@pytest.mark.parametrize("number", ["836", "8833", "83a2", "83621"])
def test_a_number_that_is_none_is_refused(tmp_path, number):
    (tmp_path / "rows.json").write_text(json.dumps([number]))
    with pytest.raises(ValueError, match=f"four|4 distinct digits, got '{number}'"):
        arbench_gn.make_dataset(str(tmp_path / "rows.json"))


def test_the_game_counts_both_and_ends_after_25_guesses():
    game = NumberGame()
    assert "25 guesses" in game.reset(secret="8362", alphabet="0123456789")
    game.guess("8236")
    assert game.hear_in_place() == "8236: 1" and game.hear_misplaced() == "8236: 3" and game.get_reward() == 0
    for _ in range(24):
        game.guess("0145")
    with pytest.raises(ValueError, match="no guesses left"):
        game.guess("8362")


@pytest.mark.parametrize(
    "text, right",
    [
        ("8362", True),
        ("The number is 8362.", True),
        ("8362!", True),
        ("**8362**", True),
        ("\\boxed{8362}", True),
        ("It is not 1058 but 8362", True),
        ("It is not 8362 but 1058", False),
        ("8362 8362", True),
        ("8362 1234 5", False),
        ("8362 12 345", True),  # other words than numbers of four digits are passed over
        ("8362 12345", True),
        ("83622", False),
        ("836", False),
        ("2638", False),
        ("8 3 6 2", False),
        ("8,362", False),
        ("8.362", False),
        ("8362.0", True),
        ("-8362", True),
        ("a8362", False),
        ("#8362", True),
        ("guess(8362)", True),
        ("Answer: 8362\n", True),
        ("Answer: 8363\n", False),
        ("eight three six two", False),
        ("<think>8362</think>", False),  # in thoughts only
        ("<think>1058</think>8362", True),
        ("<think>8362", False),
        ("", False),
        ("8362?", True),
        ("'8362'", True),
        ("0836", False),
    ],
)
def test_answers(text, right):
    said = [[{"role": "assistant", "content": text}]]
    assert arbench_gn.reward(said, ["8362"], ["0123456789"]) == [float(right)]
