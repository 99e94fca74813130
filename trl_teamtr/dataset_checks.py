"""Faults of a dataset, found before anything is generated."""

from collections.abc import Sequence

from datasets import Dataset, IterableDataset
from trl.data_utils import is_conversational

from .rollout import Speaker
from .transcript import Transcript


def check_columns(dataset: Dataset | IterableDataset | None, agents: Sequence[str], split: str):
    """
    Raise `ValueError` unless every row of `dataset` can start a rollout of the team `agents`.

    Args:
        dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]): Of a stream, the first row is looked at.
        agents (`Sequence[str]`): Names of the team.
        split (`str`): What to call the dataset in the message.
    """
    first = next(iter(dataset), None) if dataset is not None else None
    if first is None:
        raise ValueError(f"The {split} dataset is empty. It needs at least one row with a 'prompt'.")
    if "prompt" not in first:
        raise ValueError(
            f"The {split} dataset has no 'prompt' column; its columns are {', '.join(first)}. Rename yours with "
            "`dataset.rename_column('...', 'prompt')`."
        )
    if "image" in first or "images" in first:
        raise ValueError(
            f"The {split} dataset has an image column, but teams read text only. Remove the column with "
            "`dataset.remove_columns(...)`."
        )
    if is_conversational(first) and not all(isinstance(turn["content"], str) for turn in first["prompt"]):
        raise ValueError(f"The {split} dataset's prompts have structured content, but teams read text only.")
    private = first.get("agent_prompts")
    if private is not None and not isinstance(private, dict):
        raise ValueError(
            f"The {split} dataset's 'agent_prompts' must be a dict from agent name to text, got {private!r}."
        )
    unknown = [name for name in private or {} if name not in agents]
    if unknown:
        raise ValueError(
            f"The {split} dataset's 'agent_prompts' name {', '.join(unknown)}, but the team is {', '.join(agents)}."
        )


def check_lengths(dataset: Dataset | IterableDataset | None, speakers: Sequence[Speaker], split: str):
    """
    Raise `ValueError` if a prompt of a map-style `dataset`, with room for one message, exceeds an agent's context.

    Prompts with fewer bytes than the agent has room for tokens need no tokenizing, which makes this cheap.
    """
    if not isinstance(dataset, Dataset):
        return
    names = tuple(speaker.name for speaker in speakers)
    for row, example in enumerate(dataset.select_columns([c for c in dataset.column_names if c in _READ])):
        size = len(str(example).encode())
        for speaker in speakers:
            room = speaker.max_view_length - speaker.max_completion_length
            if size < room // 2:
                continue
            transcript = speaker.new_transcript(example, names)
            length = len(speaker.renderer_for(example["prompt"]).opening(transcript, []))
            if length > room:
                raise ValueError(
                    f"The prompt of row {row} of the {split} dataset takes {length} tokens in the view of agent "
                    f"{speaker.name!r}, which has room for {room}: {speaker.max_view_length} less "
                    f"`max_completion_length` ({speaker.max_completion_length}). Drop or shorten such rows."
                )


_READ = ("prompt", "agent_prompts")


def probe_prompts(dataset: Dataset | IterableDataset, count: int = 64) -> list[str | list[dict]]:
    """The first prompts of `dataset`, for a dry run of the router."""
    return [row["prompt"] for row, _ in zip(dataset, range(count), strict=False)]


def needs_turns(transcripts: Sequence[Transcript]) -> bool:
    """Whether some agent speaks more than once in one of `transcripts`."""
    return any(len({m.agent for m in t.messages}) < len(t.messages) for t in transcripts)
