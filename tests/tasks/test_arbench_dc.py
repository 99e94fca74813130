"""AR-Bench's detective cases: the columns, and answers by hand."""

import json

import pytest

from trl_teamtr.tasks import arbench_dc


NAMES = ["Ann", "Bo", "Cy", "Dee", "Eve"]
VICTIM = {"name": "Mr. X", "introduction": "A collector.", "cause_of_death": "Poison", "murder_weapon": "Tea"}
ROW = {
    "time": "Evening",
    "location": "Library",
    "victim": VICTIM,
    "suspects": [{"name": name, "introduction": f"{name} is here.", "story": f"{name} was alone."} for name in NAMES],
    "initial_information": {
        "time": "Evening",
        "location": "Library",
        "victim": VICTIM,
        "suspect": [{"name": name, "introduction": f"{name} is here."} for name in NAMES],
    },
    "key_question": [],
    "label": 3,
    "index": 1,
}


def test_columns(tmp_path):
    (tmp_path / "data" / "dc").mkdir(parents=True)
    (tmp_path / "data" / "dc" / "test.json").write_text(json.dumps([ROW]))
    (row,) = arbench_dc.make_dataset(str(tmp_path))
    prompt = row["prompt"][0]["content"]
    assert "D. Dee: Dee is here." in prompt and "Tea" in prompt and "was alone" not in prompt
    assert (
        row["murderer"] == "D" and row["judge"] == "judge" and "Eve: Eve was alone." in row["agent_prompts"]["judge"]
    )
    (tmp_path / "rows.json").write_text(json.dumps([{"label": 1}]))
    with pytest.raises(ValueError, match="lacks initial_information, suspects; it has label"):
        arbench_dc.make_dataset(str(tmp_path / "rows.json"))


@pytest.mark.parametrize(
    "text, right",
    [
        ("Answer: D", True),
        ("answer: D", True),
        ("Answer: d", True),
        ("Answer: D.", True),
        ("Answer: (D)", True),
        ("Answer: D. Dee", True),
        ("**Answer:** D", True),
        ("The answer is D.", True),
        ("Answer D", True),
        ("Answer: C", False),
        ("Answer: F", False),
        ("Answer: Dee", False),  # the instruction asks for a letter
        ("Answer: Eve", False),
        ("Answer: C. No! Answer: D", True),  # twice: the last one counts
        ("Answer: D. No! Answer: C", False),
        ("\\boxed{D}", True),
        ("\\boxed{\\text{D}}", True),
        ("\\boxed{(D)}", True),
        ("\\boxed{E}", False),
        ("Answer: C, or rather \\boxed{D}", True),
        ("D", True),
        ("D.", True),
        ("(D)", True),
        ("E", False),
        ("A dog did it", False),
        ("D and E", False),
        ("It was Dee", False),
        ("", False),
        ("<think>Answer: D</think>", False),  # in thoughts only
        ("<think>Answer: C</think>Answer: D", True),
        ("<think>Answer: D", False),
        ("Answer: D\nAnswer:", True),
        ("Answer: DE", False),
        ("My answer: E is innocent. Answer: D", True),
    ],
)
def test_answers(text, right):
    messages = [{"name": "a", "content": text}, {"name": "judge", "content": "Answer: D"}]
    assert arbench_dc.reward([messages], ["D"], ["judge"]) == [float(right)]
