"""MATH-500: 500 problems of MATH (Hendrycks et al., 2021), with expressions as answers."""

from datasets import Dataset

from .math_answers import INSTRUCTION, math_reward, read_answer
from .published import Source, as_dataset


SOURCE = Source(
    "math500",
    "HuggingFaceH4/MATH-500",
    ("problem", "answer"),
    licence="not stated; MATH is under the MIT licence",
    split="test",
)
__all__ = ["SOURCE", "make_dataset", "read_answer", "reward"]
reward = math_reward


def make_dataset(dataset_path: str | None = None, revision: str | None = None) -> Dataset:
    """Rows with `prompt` and `answer`. The arguments are those of [`~trl_teamtr.tasks.published.Source.read`]."""
    rows = SOURCE.read(dataset_path, revision)
    return as_dataset([{"prompt": row["problem"], "answer": str(row["answer"])} for row in rows], INSTRUCTION)
