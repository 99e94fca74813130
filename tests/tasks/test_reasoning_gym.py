import json

import pytest

from trl_teamtr.tasks.reasoning_gym import extract_answer, make_dataset, reasoning_gym_reward


@pytest.mark.parametrize(
    "text, reference, answer",
    [
        ("<answer>4</answer> no, <answer> 7 </answer> or 9", "7", "7"),
        ("<answer>x = 3, y = 12</answer>", "12", "12"),
        ("<answer>\n a b \n</answer>", "a b", "a b"),
        ("Answer: 3\nThe answer is: 42\nChecked 5 times.", "42", "42"),
        ("ANSWER = -2.5", "-2.5", "-2.5"),
        ("first answer: no\nAnswer: maybe not ", "yes", "maybe not"),
        ("6 times 7 is 42.", "42", "42"),
        ("-3 or 0.5", " 0.5 ", "0.5"),
        ("  no number here ", "42", "no number here"),
        (" A knave, 3 knights ", "knave", "A knave, 3 knights"),
        ("", "42", ""),
    ],
)
def test_extract_answer(text, reference, answer):
    assert extract_answer(text, reference) == answer


def test_rows_are_conversational_with_the_tasks_record():
    dataset = make_dataset("chain_sum", size=4, seed=3, min_terms=2, max_terms=2)
    assert dataset.column_names == ["prompt", "answer", "entry"] and len(dataset) == 4
    for row in dataset:
        record = json.loads(row["entry"])
        assert record["metadata"]["source_dataset"] == "chain_sum"
        assert row["prompt"] == [{"role": "user", "content": record["question"]}]
        first, sign, second = record["question"].rpartition(": ")[2].removesuffix(" =").split()
        assert int(row["answer"]) == int(first) + int(sign + second)


def test_dataset_is_a_function_of_the_seed():
    first, again, far = (make_dataset("chain_sum", size=5, seed=seed) for seed in (1, 1, 1000))
    assert list(first["entry"]) == list(again["entry"])
    assert not {row["prompt"][0]["content"] for row in first} & {row["prompt"][0]["content"] for row in far}


def reward(dataset, completions):
    return reasoning_gym_reward(
        completions, answer=list(dataset["answer"]), entry=list(dataset["entry"]), prompts=None
    )


def test_reward_scores_right_and_wrong_answers():
    dataset = make_dataset("chain_sum", size=3, seed=0)
    right = [f"Added up it makes {answer}." for answer in dataset["answer"]]
    assert reward(dataset, right) == [1.0, 1.0, 1.0]
    wrong = [f"<answer>{int(answer) + 1}</answer> and not {answer}" for answer in dataset["answer"]]
    assert max(reward(dataset, wrong)) < 0.5


def test_reward_reads_the_last_turn_of_a_conversational_completion():
    dataset = make_dataset("chain_sum", size=1, seed=0)
    (answer,) = dataset["answer"]
    turns = [{"role": "assistant", "content": "Let me see."}, {"role": "assistant", "content": f"Answer: {answer}"}]
    assert reward(dataset, [turns]) == [1.0]
    assert reward(dataset, [turns[::-1]])[0] < 1.0


def test_the_tasks_own_scorer_decides():
    """In countdown, any expression of the given numbers that reaches the target is right."""
    dataset = make_dataset("countdown", size=1, seed=0)
    (reference,) = dataset["answer"]
    assert reward(dataset, [f"<answer>(({reference}))</answer>"]) == [1.0]
    assert reward(dataset, [f"<answer>({reference}) * 1</answer>"])[0] < 1.0


@pytest.mark.parametrize(
    "task", ["chain_sum", "leg_counting", "knights_knaves", "countdown", "word_sorting", "base_conversion"]
)
def test_reference_answers_of_text_and_number_tasks_get_the_full_reward(task):
    dataset = make_dataset(task, size=3, seed=0)
    tagged = [f"I think so. <answer>{answer}</answer>" for answer in dataset["answer"]]
    assert reward(dataset, tagged) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "text, reference, answer",
    [
        ("1,234", "1234", "1234"),
        ("<answer>-14,282</answer>", "-14282", "-14282"),
        ("answer: 12 (since 3 + 9)", "12", "12"),
        ("2-5", "5", "5"),
        ("it is -5", "-5", "-5"),
    ],
)
def test_numbers_as_people_write_them(text, reference, answer):
    assert extract_answer(text, reference) == answer


def test_task_whose_records_json_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="'arc_agi' needs records that JSON cannot hold"):
        make_dataset("arc_agi", 2, 0)
