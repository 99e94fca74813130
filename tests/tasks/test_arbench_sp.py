"""AR-Bench's situation puzzles: the columns, and answers by hand."""

import json
from collections import Counter

import pytest

from trl_teamtr.tasks import arbench_sp


ROW = {"surface": "A man is wet.", "bottom": "It rained.", "key_question": ["Did it rain?"], "index": 1}
ROW |= {"supernatural": False, "someone_dies": False, "core_sentence": "It rained.", "story_tree": {"children": []}}


def test_columns(tmp_path):
    (tmp_path / "data" / "sp").mkdir(parents=True)
    (tmp_path / "data" / "sp" / "test.json").write_text(json.dumps([ROW]))
    (row,) = arbench_sp.make_dataset(str(tmp_path), judge="teller")
    assert row["prompt"][0]["content"].startswith("A man is wet.") and "rained" not in row["prompt"][0]["content"]
    assert row["story"] == "It rained." and row["judge"] == "teller"
    assert list(row["agent_prompts"]) == ["teller"] and row["agent_prompts"]["teller"].endswith("It rained.")
    (tmp_path / "rows.json").write_text(json.dumps([{"surface": "?"}]))
    with pytest.raises(ValueError, match="lacks bottom"):
        arbench_sp.make_dataset(str(tmp_path / "rows.json"))


# Answer and story, letters that both have, by hand; F1 is twice that by the sum of the lengths
@pytest.mark.parametrize(
    "said, story, common",
    [
        ("rain", "rain", 4),
        ("rain", "Rain", 3),
        ("rain", "nair", 4),
        ("rain", "sun", 1),
        ("rain", "dog", 0),
        ("", "rain", 0),
        ("rain", "", 0),
        ("a", "aaaa", 1),
        ("aaaa", "a", 1),
        ("aab", "abb", 2),
        ("it rained", "it rained", 9),
        ("it rained", "itrained", 8),
        ("it rained.", "it rained", 9),
        ("It rained", "it rained", 8),
        ("no", "on no", 2),
        ("yes", "no", 0),
        ("x" * 100, "x", 1),
        ("the man swam", "the man swam home", 12),
        ("the man", "the woman", 7),
        ("123", "321", 3),
        ("ab", "cd", 0),
        ("ab", "bc", 1),
        ("  ", " ", 1),
        ("e", "eel", 1),
        ("eel", "e", 1),
        ("lee", "eel", 3),
        ("été", "ete", 1),
        ("\n", "\n", 1),
        ("abcabc", "abc", 3),
        ("a b", "b a", 3),
    ],
)
def test_answers(said, story, common):
    messages = [{"name": "a", "content": said}, {"name": "judge", "content": story}]
    (score,) = arbench_sp.reward([messages], [story], ["judge"])
    assert score == pytest.approx(2 * common / max(len(said) + len(story), 1))
    assert score <= 1 and (score == 1) == (Counter(said) == Counter(story) and bool(story))


def test_a_thought_is_no_story():
    said = [{"name": "a", "content": "<think>It rained.</think>"}]
    assert arbench_sp.reward([said, []], ["It rained."] * 2, ["judge"] * 2) == [0.0, 0.0]
