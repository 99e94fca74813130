"""AR-Bench's situation puzzles: an odd situation, whose story is found by questions that a judge answers with yes or no."""

from collections import Counter
from typing import Any

from datasets import Dataset

from .judged import JUDGE, answers_of, private_prompts
from .published import Source, as_dataset


SOURCE = Source(
    "arbench_sp",
    "https://github.com/tmlr-group/AR-Bench",
    ("surface", "bottom"),
    licence="not stated in the repository",
    split=None,
    files=("data/sp/test.json",),
)
INSTRUCTION = "Ask questions that can be answered with yes or no. The last message of the team tells the whole story."
TOLD = "You know the story behind the puzzle. Answer each question about it with Yes, No or Unknown, and tell nothing else.\n\n"


def make_dataset(dataset_path: str | None = None, revision: str | None = None, judge: str = JUDGE) -> Dataset:
    """
    Rows with `prompt`, `agent_prompts` (the story, for the judge), `story` and `judge`.

    Args:
        dataset_path, revision: As for [`~trl_teamtr.tasks.published.Source.read`].
        judge (`str`): Name of the member that answers questions: a frozen one (`trainable: false`).
    """
    rows = SOURCE.read(dataset_path, revision)
    return as_dataset(
        [
            {"prompt": row["surface"], "story": row["bottom"]} | private_prompts(judge, TOLD + row["bottom"])
            for row in rows
        ],
        INSTRUCTION,
    )


def overlap(said: str, story: str) -> float:
    """F1 of the characters of an answer and of the story, as multisets: AR-Bench's measure, between 0 and 1."""
    common = (Counter(said) & Counter(story)).total()
    return 2 * common / (len(said) + len(story)) if common else 0.0


def reward(transcripts: list[list[dict[str, str]]], story: list[str], judge: list[str], **kwargs: Any) -> list[float]:
    """[`overlap`] of the last message that is not the judge's."""
    return [overlap(said, truth) for said, truth in zip(answers_of(transcripts, judge), story, strict=True)]
