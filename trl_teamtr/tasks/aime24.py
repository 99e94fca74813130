"""AIME 2024: 30 problems of a competition, with integers from 0 to 999 as answers."""

from datasets import Dataset

from .math_answers import INSTRUCTION, math_reward, read_answer
from .published import Source, as_dataset


SOURCE = Source(
    "aime24",
    "HuggingFaceH4/aime_2024",
    ("problem", "answer"),
    licence="not stated; the problems are the Mathematical Association of America's",
)
__all__ = ["SOURCE", "make_dataset", "read_answer", "reward"]
reward = math_reward


def make_dataset(dataset_path: str | None = None, revision: str | None = None) -> Dataset:
    """Rows with `prompt` and `answer`. The arguments are those of [`~trl_teamtr.tasks.published.Source.read`]."""
    rows = SOURCE.read(dataset_path, revision)
    return as_dataset([{"prompt": row["problem"], "answer": str(row["answer"])} for row in rows], INSTRUCTION)
