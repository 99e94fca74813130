"""`transcripts.jsonl` in the output directory: some rollouts of every update and evaluation, with their rewards."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback

from ..conversation.transcript import Transcript


TRANSCRIPT_FILE = "transcripts.jsonl"

# Rollouts of an update, and of an evaluation; and what no run exceeds
KEPT, MAX_TEXT, MAX_BYTES = 4, 2000, 64 * 2**20


class TranscriptLog(TrainerCallback):
    """
    Appends rollouts to `transcripts.jsonl`, until the file is too large. A new run begins the file anew; a resumed one continues
    it at its checkpoint.

    Args:
        folder (`str`): The output directory of the run.
        writes (`bool`): Whether this process writes.

    Attributes:
        last (`list[dict]`): What was written last, of one update or evaluation.
    """

    def __init__(self, folder: str, writes: bool):
        self._path, self._writes = os.path.join(folder, TRANSCRIPT_FILE), writes
        self._last: tuple[int, str | None] | None = None
        self._start: int | None = None  # where this process began to write
        self.last: list[dict[str, Any]] = []

    def on_train_begin(self, args, state, control, **kwargs):
        if not self._writes or not os.path.isfile(self._path):
            return
        with open(self._path, encoding="utf-8") as file:
            if state.global_step == 0:  # evaluations before the training belong to it
                file.seek(os.path.getsize(self._path) if self._start is None else self._start)
            lines = [line for line in file if line.endswith("\n")]
        kept = [line for line in lines if json.loads(line)["step"] <= state.global_step]
        with open(f"{self._path}.tmp", "w", encoding="utf-8") as file:
            file.writelines(kept)
        os.replace(f"{self._path}.tmp", self._path)

    def write(
        self,
        step: int,
        stage: int,
        agent: str | None,
        transcripts: Sequence[Transcript],
        returns: Sequence[float],
        advantages: Sequence[float] | None = None,
        rewards: Sequence[Mapping[str, float]] | None = None,
        tokens: Sequence[list[dict[str, Any]]] | None = None,
    ):
        """
        Append the first of `transcripts`; nothing for a further batch of the same update or evaluation.

        Args:
            step (`int`): Number of updates, the one that they are for included.
            stage (`int`): Its stage, from 1.
            agent (`str`, *optional*): The agent that is updated on them; `None` for an evaluation.
            transcripts (`Sequence[Transcript]`): Of this process.
            returns, advantages (`Sequence[float]`): Of each of them.
            rewards (`Sequence[dict[str, float]]`, *optional*): What the return of each was made of, by function, unweighted.
            tokens (`Sequence[list[dict]]`, *optional*): For each rollout that is kept, what is kept of the tokens of each of the
                agent's messages.
        """
        if not self._writes or self._last == (step, agent):
            return
        self._last = (step, agent)
        self.last = []
        for row, transcript in enumerate(transcripts[:KEPT]):
            entry = {
                "step": step,
                "stage": stage,
                "agent": agent,
                **describe(transcript),
                "reward": _finite(returns[row]),
            }
            if advantages is not None:
                entry["advantage"] = _finite(advantages[row])
            if tokens is not None:
                own = [message for message in entry["messages"] if message["agent"] == agent]
                for message, more in zip(own, tokens[row], strict=True):
                    message.update(more)
            if rewards is not None:
                entry["rewards"] = {name: _finite(value) for name, value in rewards[row].items()}
            self.last.append(entry)
        self._append(self.last)

    def write_values(
        self, step: int, stage: int, transcript: Transcript, reward: float, values: Sequence[tuple[float, float]]
    ):
        """
        Append a held-out rollout with the values of its messages.

        Args:
            step, stage (`int`): As in [`~TranscriptLog.write`].
            transcript ([`Transcript`]): The rollout.
            reward (`float`): Its return.
            values (`Sequence[tuple[float, float]]`): Of each message what it is worth, and the standard error.
        """
        if not self._writes:
            return
        entry = {"step": step, "stage": stage, "agent": None, **describe(transcript), "reward": _finite(reward)}
        for message, (value, error) in zip(entry["messages"], values, strict=True):
            message["worth"] = [_finite(value), _finite(error)]
        self._append([entry])

    def _append(self, entries: list[dict[str, Any]]):
        """Write lines, unless the file is too large."""
        size = os.path.getsize(self._path) if os.path.isfile(self._path) else 0
        self._start = size if self._start is None else self._start
        if size > MAX_BYTES:
            return
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def rewards_of(logged: Mapping[str, Sequence[float]], first: int, number: int, total: int) -> list[dict[str, float]]:
    """
    What the returns of some rollouts were made of.

    Args:
        logged (`dict[str, Sequence[float]]`): The rewards of each function that TRL has logged last, over all processes.
        first, number (`int`): The first of the rollouts among those of the last batch, and their number.
        total (`int`): Number of rollouts of that batch. TRL may keep fewer: then nothing is known.
    """
    lasting = {name: list(values)[-total:] for name, values in logged.items() if len(values) >= total}
    return [{name: values[row] for name, values in lasting.items()} for row in range(first, first + number)]


def read_transcripts(folder: str, most: int) -> list[dict[str, Any]]:
    """At most `most` of the transcripts of the run in `folder`, evenly spread, the first and the last among them."""
    path = os.path.join(folder, TRANSCRIPT_FILE)
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8") as file:
        lines = [line for line in file if line.endswith("\n")]
    if len(lines) > most:
        lines = [lines[round(i * (len(lines) - 1) / (most - 1))] for i in range(most)]
    return [json.loads(line) for line in lines]


def describe(transcript: Transcript) -> dict[str, Any]:
    """What is kept of a transcript: texts, cut if they are long, and the numbers of their tokens."""
    prompt = transcript.prompt
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return {
        "prompt": [{"role": turn["role"], "content": _cut(turn["content"])} for turn in turns],
        "private": {name: _cut(text) for name, text in transcript.private.items()},
        "messages": [
            {"agent": m.agent, "text": _cut(m.text), "tokens": m.num_tokens, "finished": m.finished}
            | ({"thought": _cut(m.thought)} if m.thought else {})
            | ({"tools": [_cut(str(use)) for use in m.tool_uses]} if m.tool_uses else {})
            for m in transcript.messages
        ],
    }


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} … ({len(text) - MAX_TEXT} more characters)"


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
