"""Tasks in which one frozen member knows the truth, answers the others' questions, and has no say in the answer."""

from typing import Any

from .answers import final_text


JUDGE = "judge"  # the name of that member, unless a task is told another


def answer_of(messages: list[dict[str, str]], judge: str) -> str:
    """The last message that is not the judge's, without its thoughts; empty if there is none."""
    own = [message for message in messages if message["name"] != judge]
    return final_text(own[-1:]) if own else ""


def answers_of(transcripts: list[list[dict[str, str]]], judges: list[str]) -> list[str]:
    """[`answer_of`] for each rollout."""
    return [answer_of(messages, judge) for messages, judge in zip(transcripts, judges, strict=True)]


def private_prompts(judge: str, text: str) -> dict[str, Any]:
    """The columns of a row that tell the judge, and nobody else, the truth."""
    return {"agent_prompts": {judge: text}, "judge": judge}
