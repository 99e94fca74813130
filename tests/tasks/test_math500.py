"""MATH-500: its columns, and answers by hand."""

import pytest
from datasets import Dataset

from trl_teamtr.tasks import math500


ROW = {"problem": "Half of $3$?", "solution": "...", "answer": "\\frac{3}{2}", "subject": "Algebra", "level": 2}
ROW |= {"unique_id": "test/algebra/1.json"}


@pytest.mark.parametrize("extension", ["parquet", "csv"])
def test_columns(tmp_path, extension):
    path = str(tmp_path / f"rows.{extension}")
    {"parquet": Dataset.to_parquet, "csv": Dataset.to_csv}[extension](Dataset.from_list([ROW]), path)
    (row,) = math500.make_dataset(path)
    assert row["answer"] == "\\frac{3}{2}" and row["prompt"][0]["content"].startswith("Half of $3$?")
    assert (math500.SOURCE.place, math500.SOURCE.split) == ("HuggingFaceH4/MATH-500", "test")


@pytest.mark.parametrize(
    "answer, text, right",
    [
        ("\\frac{3}{2}", "\\boxed{\\frac{3}{2}}", True),
        ("\\frac{3}{2}", "\\boxed{3/2}", True),
        ("\\frac{3}{2}", "\\boxed{1.5}", True),
        ("\\frac{3}{2}", "\\boxed{\\frac{6}{4}}", True),
        ("\\frac{3}{2}", "\\boxed{\\frac32}", True),
        ("\\frac 59", "\\boxed{\\dfrac{5}{9}}", True),
        ("\\frac{3}{2}", "\\boxed{1\\frac{1}{2}}", True),
        ("\\frac{3}{2}", "\\boxed{\\frac{2}{3}}", False),
        ("\\frac{3}{2}", "\\boxed{-\\frac{3}{2}}", False),
        ("\\frac{1}{3}", "\\boxed{0.3}", False),
        ("5", "\\boxed{5 \\text{ cm}}", True),
        ("5", "\\boxed{5\\,\\text{cm}^2}", True),
        ("5.4 \\text{ cents}", "\\boxed{5.4}", True),
        ("5.4 \\text{ cents}", "\\boxed{5.4 \\text{ cents}}", True),
        ("5.4 \\text{ cents}", "\\boxed{54}", False),
        ("90^\\circ", "\\boxed{90^\\circ}", True),
        ("90^\\circ", "\\boxed{90}", True),
        ("90^\\circ", "\\boxed{45^\\circ}", False),
        ("10,\\!080", "\\boxed{10080}", True),
        ("10,\\!080", "\\boxed{10,080}", True),
        ("10,\\!080", "\\boxed{1080}", False),
        ("\\$18.90", "\\boxed{18.90}", True),
        ("50\\%", "\\boxed{50\\%}", True),
        ("11\\sqrt2", "\\boxed{11\\sqrt{2}}", True),
        ("11\\sqrt2", "\\boxed{\\sqrt{242}}", True),
        ("11\\sqrt2", "\\boxed{11\\sqrt{3}}", False),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "\\boxed{(3, \\pi/2)}", True),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "\\boxed{(\\pi/2, 3)}", False),
        ("6 - 5i", "\\boxed{6-5i}", True),
        ("6 - 5i", "\\boxed{-5i+6}", True),
        ("6 - 5i", "\\boxed{6+5i}", False),
        ("p - q", "\\boxed{p-q}", True),
        ("p - q", "\\boxed{q-p}", False),
        ("x^2 + 2x + 1", "\\boxed{(x+1)^2}", True),
        ("x^2 + 2x + 1", "\\boxed{(x-1)^2}", False),
        ("\\text{Evelyn}", "\\boxed{\\text{Evelyn}}", True),
        ("\\text{Evelyn}", "\\boxed{\\text{Carla}}", False),
        ("\\text{(C)}", "\\boxed{\\text{(C)}}", True),
        ("\\text{(C)}", "\\boxed{\\text{(D)}}", False),
        ("1,-2", "\\boxed{1,-2}", True),
        ("1,-2", "\\boxed{-2,1}", True),
        ("1,-2", "\\boxed{1,2}", False),
        ("[-2,7]", "\\boxed{[-2,7]}", True),
        ("[-2,7]", "\\boxed{(-2,7)}", False),
        (
            "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
            "\\boxed{\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}}",
            True,
        ),
        (
            "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
            "\\boxed{\\begin{pmatrix} 1 & 2 \\\\ 3 & 5 \\end{pmatrix}}",
            False,
        ),
        ("7", "First \\boxed{8}; I was wrong. \\boxed{7}", True),
        ("7", "<think>\\boxed{7}</think>", False),
        ("7", "<think>\\boxed{8}</think> The final answer is $7$.", True),
        ("7", "7", False),
        ("7", "\\boxed{x = 7}", True),
    ],
)
def test_answers(answer, text, right):
    assert math500.reward([text], [answer]) == [float(right)]
