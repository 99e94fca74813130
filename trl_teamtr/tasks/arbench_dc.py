"""AR-Bench's detective cases: five suspects, played by a judge who knows their stories, and one murderer."""

import re
from typing import Any

from datasets import Dataset

from .judged import JUDGE, answers_of, private_prompts
from .published import Row, Source, as_dataset


SOURCE = Source(
    "arbench_dc",
    "https://github.com/tmlr-group/AR-Bench",
    ("initial_information", "suspects", "label"),
    licence="not stated in the repository",
    split=None,
    files=("data/dc/test.json",),
)
LETTERS = "ABCDE"
INSTRUCTION = "Question the suspects. The last message of the team ends with the murderer's letter, as 'Answer: X'."
TOLD = "You play all suspects. Answer a question as the suspect who is asked would, by this story, and reveal no more.\n\n"

_LABELLED = re.compile(r"answer(?:\s+is)?[\s:*]*\(?([A-E])\b", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\{(?:\\text\{)?\s*\(?([A-E])\)?\s*\}")
_ALONE = re.compile(r"\W*([A-E])\W*")


def make_dataset(dataset_path: str | None = None, revision: str | None = None, judge: str = JUDGE) -> Dataset:
    """
    Rows with `prompt`, `agent_prompts` (the suspects' stories, for the judge), `murderer` (a letter) and `judge`.

    Args:
        dataset_path, revision: As for [`~trl_teamtr.tasks.published.Source.read`].
        judge (`str`): Name of the member that plays the suspects: a frozen one (`trainable: false`).
    """
    return as_dataset(
        [
            {"prompt": _describe(row["initial_information"]), "murderer": LETTERS[row["label"]]}
            | private_prompts(judge, TOLD + "\n\n".join(f"{who['name']}: {who['story']}" for who in row["suspects"]))
            for row in SOURCE.read(dataset_path, revision)
        ],
        INSTRUCTION,
    )


def _describe(case: Row) -> str:
    """What a detective knows at the beginning."""
    victim = case["victim"]
    suspects = [
        f"{letter}. {who['name']}: {who['introduction']}"
        for letter, who in zip(LETTERS, case["suspect"], strict=False)
    ]
    return "\n".join(
        [
            f"A murder at {case['time']}, {case['location']}.",
            f"The victim, {victim['name']}: {victim['introduction']}",
            f"Cause of death: {victim['cause_of_death']}. Weapon: {victim['murder_weapon']}.",
            "The suspects:",
            *suspects,
        ]
    )


def extract_letter(text: str) -> str | None:
    """The letter of the last labelled or boxed answer, or of a message that is one letter; `None` if there is none."""
    found = [(match.start(), match[1].upper()) for form in (_LABELLED, _BOXED) for match in form.finditer(text)]
    if found:
        return max(found)[1]
    alone = _ALONE.fullmatch(text)
    return alone[1] if alone else None


def reward(
    transcripts: list[list[dict[str, str]]], murderer: list[str], judge: list[str], **kwargs: Any
) -> list[float]:
    """1 where the last message that is not the judge's names the murderer, else 0."""
    said = answers_of(transcripts, judge)
    return [float(extract_letter(text) == letter) for text, letter in zip(said, murderer, strict=True)]
