"""Check that rewards read what they are given of messages with private thoughts."""

from collections.abc import Sequence

from ..policy.participant import Participant
from ..policy.speaker import Speaker


# TRL's rewards that look for a thought in the answer, and score one without as wrong
_READ_THOUGHTS = ("think_format_reward", "reasoning_accuracy_reward")


def check_thoughts(speakers: Sequence[Participant], rewards: Sequence[str]):
    """
    Raise `ValueError` if one of `rewards`, by their names, looks for a thought in the text of answers, which have none.

    Args:
        speakers (`Sequence[Participant]`): The team.
        rewards (`Sequence[str]`): Names of the reward functions.
    """
    private = [speaker.name for speaker in speakers if isinstance(speaker, Speaker) and speaker.thoughts is not None]
    wanted = [name for name in rewards if name in _READ_THOUGHTS]
    if private and wanted:
        raise ValueError(
            f"The reward {wanted[0]!r} looks for thoughts in the answer, but those of {', '.join(map(repr, private))} are private: "
            "rewards read the answer as `content`, and the thought as `reasoning_content` of `transcripts`. Set "
            "`Agent(..., thoughts='shared')`, or use a reward that reads these ('accuracy_reward')."
        )
