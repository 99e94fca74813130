"""What of a message is its answer."""

import pytest

from trl_teamtr.tasks.answers import final_text, last_json


@pytest.mark.parametrize(
    "text, answer",
    [
        ("4", "4"),
        ("<think>3</think>4", "4"),
        ("<think>3</think><think>5</think>4", "4"),
        ("3</think>4", "4"),
        ("<think>3", ""),
        ("4<think>3", "4"),
        ("", ""),
    ],
)
def test_thoughts_are_no_answer(text, answer):
    assert final_text(text) == final_text([{"content": "9"}, {"content": text}]) == answer


@pytest.mark.parametrize(
    "text, found",
    [
        ('{"a": 1}', {"a": 1}),
        ('{"a": 1} and {"b": {"c": 2}} so', {"b": {"c": 2}}),
        ('{"a": 1} {"b": ', {"a": 1}),
        ('{"a": {"b": 2}', {"b": 2}),
        ("{not json} {}", {}),
        ("no", None),
        ("", None),
        ("{" * 5000, None),
        ('{"a":' * 5000, None),
    ],
)
def test_the_last_complete_object_counts(text, found):
    assert last_json(text) == found
