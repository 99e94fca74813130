"""AIME 2025: 30 problems of a competition, with integers from 0 to 999 as answers."""

from datasets import Dataset

from .math_answers import INSTRUCTION, math_reward, read_answer
from .published import Source, as_dataset


SOURCE = Source(
    "aime25",
    "MathArena/aime_2025",
    ("problem", "answer"),
    licence="CC BY-NC-SA 4.0",
)
__all__ = ["SOURCE", "make_dataset", "read_answer", "reward"]
reward = math_reward


def make_dataset(dataset_path: str | None = None, revision: str | None = None) -> Dataset:
    """Rows with `prompt` and `answer`. The arguments are those of [`~trl_teamtr.tasks.published.Source.read`]."""
    rows = SOURCE.read(dataset_path, revision)
    return as_dataset([{"prompt": row["problem"], "answer": str(row["answer"])} for row in rows], INSTRUCTION)
