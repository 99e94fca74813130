"""The old member's messages as the new one would have read and written them: views with demonstrated messages."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset

from ..conversation.control_tokens import SafeEncoder
from ..conversation.rendering import ChatRenderer
from ..conversation.transcript import Message, ToolUse, Transcript
from ..conversation.view import View
from ..policy.speaker import Speaker
from ..rollouts.rollouts import Rollouts


# Turns a message of the old member into one of the reader of a view, given what it is an answer to
Restate = Callable[[Message, Transcript, list[int]], Message]

_PLACE = "\ue000"  # in no text


class CannotBeSaid(ValueError):
    """A message that its new author would not be understood to say."""


def as_said(message: Message, transcript: Transcript, context: list[int]) -> Message:
    """A message with the ids that its author sampled: for the same vocabulary."""
    return message


class Translator:
    """
    Restates messages in the vocabulary and the template of another member.

    Args:
        speaker ([`Speaker`]): The new member.
        map_calls (`bool`): Whether calls of tools are written as its template writes them.
    """

    def __init__(self, speaker: Speaker, map_calls: bool):
        self._speaker, self._map_calls = speaker, map_calls
        self._encoder = SafeEncoder(speaker.tokenizer)

    def __call__(self, message: Message, transcript: Transcript, context: list[int]) -> Message:
        """
        `message` with the ids of its text, and of the token that ends it if it was finished, or would not be read without.

        Raises:
            [`CannotBeSaid`]: If the ids would not be read as that message.
        """
        renderer, ids, uses = self._speaker.renderer_for(transcript.prompt), list[int](), []
        for use in message.tool_uses:
            ids += self._write_calls(message, use, renderer, context)
            uses.append(dataclasses.replace(use, after=len(ids)))
        ids += self._encoder.encode(_PLACE, {_PLACE: message.text})
        begin = uses[-1].after if uses else 0
        # A message that was cut is read as it is, unless its new author would have kept it to itself as a thought without an end
        ended = message.finished or not self._is_read(message, ids[begin:], context)
        if ended:
            ids.append(self._ending(renderer))
        if not ids:
            raise CannotBeSaid("it is empty")
        if ended and not self._is_read(message, ids[begin:], context):
            found = self._speaker.read_again(ids[begin:], context).answer
            raise CannotBeSaid(f"{message.text!r} would be read as {found!r}")
        said: dict[str, Any] = {"ids": tuple(ids), "finished": ended, "tool_uses": tuple(uses)}
        return dataclasses.replace(message, logps=None, thought="", tokens=None, **said)

    def _is_read(self, message: Message, ids: list[int], context: list[int]) -> bool:
        """Whether `ids` are read as the text of `message`."""
        return not ids or _squeeze(self._speaker.read_again(ids, context).answer) == _squeeze(message.text)

    def _write_calls(self, message: Message, use: ToolUse, renderer: Any, context: list[int]) -> list[int]:
        """The ids with which the new member calls tools as the old one did before a pause."""
        if not self._map_calls:
            raise CannotBeSaid("it calls tools, and `map_calls=False`")
        if self._speaker.tools is None:
            raise CannotBeSaid("it calls tools, and the new member has none")
        alone = dataclasses.replace(message, tool_uses=(use,)).as_dicts()[0]
        ids: list[int] = renderer.calling({key: alone[key] for key in ("role", "content", "tool_calls")})
        calls = self._speaker.read_again(ids, context).calls
        if [call.name for call in calls] != [call.name for call in use.calls]:
            raise CannotBeSaid(f"its calls {', '.join(call.name for call in use.calls)} would not be read as such")
        return ids

    def _ending(self, renderer: Any) -> int:
        own = renderer.ending() if isinstance(renderer, ChatRenderer) else None
        return own if own is not None else self._speaker.eos_token_ids[0]


def _squeeze(text: str) -> str:
    """Without blanks, which some tokenizers add or drop."""
    return "".join(text.split())


def view_of(transcript: Transcript, speaker: Speaker, restate: Restate) -> View | None:
    """
    What `speaker` reads of a conversation in which the member of its name speaks, with that member's messages as its own.

    Returns:
        [`View`], or `None` if it has no room for it.

    Raises:
        [`CannotBeSaid`]: If a message cannot be restated.
    """
    said = dataclasses.replace(transcript, messages=[])
    rollouts = Rollouts([said], {speaker.name: [View()]})
    (view,) = rollouts.views[speaker.name]
    for message in transcript.messages:
        if message.agent != speaker.name:
            said.messages.append(message)
            continue
        if not rollouts.read(speaker, 0):
            return None
        rollouts.write(speaker, 0, restate(message, said, view.context))
        if len(view.context) > speaker.max_view_length:
            return None
    return view


def views_of(talks: Sequence[Transcript], speaker: Speaker, restate: Restate) -> list[View | None]:
    """
    [`view_of`] each of `talks`; `None` for those that cannot be shown.

    Raises:
        `ValueError`: If none of those in which the member speaks can be shown. The message has the first reason.
    """
    found, reason = list[View | None](), ""
    for transcript in talks:
        try:
            view = view_of(transcript, speaker, restate)
            reason = reason or ("" if view is not None else "the context has no room for it")
        except CannotBeSaid as error:
            view, reason = None, reason or str(error)
        found.append(view)
    speaks = [view for view, talk in zip(found, talks, strict=True) if talk.turns_of(speaker.name)]
    if not speaks:
        raise ValueError(
            f"Member {speaker.name!r} speaks in none of the {len(talks)} probe conversations, so there is nothing to align to. "
            "Pass other probes, or look at the router."
        )
    if not any(view is not None for view in speaks):
        raise ValueError(
            f"The new member {speaker.name!r} cannot be shown any message of the old one: {reason}. Where its template opens a thought, "
            "set `thoughts_off=True`; where it has other characters, choose another model."
        )
    return found


def as_dataset(views: Sequence[View]) -> Dataset:
    """Rows for [`~trl.SFTTrainer`]: `input_ids` as read, and `labels` on the demonstrated messages alone, -100 elsewhere."""
    return Dataset.from_list([{"input_ids": view.context, "labels": _labels(view)} for view in views])


def as_paired_dataset(views: Sequence[View], teacher: Sequence[View]) -> Dataset:
    """[`as_dataset`] with what the old member read and said, in columns `teacher_input_ids` and `teacher_labels`."""
    rows = [
        {
            "input_ids": own.context,
            "labels": _labels(own),
            "teacher_input_ids": old.context,
            "teacher_labels": _labels(old),
        }
        for own, old in zip(views, teacher, strict=True)
    ]
    return Dataset.from_list(rows)


def _labels(view: View) -> list[int]:
    own = [token if is_own else -100 for token, is_own in zip(view.sampled_ids, view.mask, strict=True)]
    return [-100] * len(view.prompt_ids) + own
