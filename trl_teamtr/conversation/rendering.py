"""How an agent reads the shared transcript: through its chat template, or as plain text."""

import functools
import itertools
import json
from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from .control_tokens import SafeEncoder
from .own_history import OwnTurns, Texts
from .template_date import with_date
from .tool_results import ResultRenderer
from .transcript import Message, Transcript


# Private-use characters: no template or dataset contains them, and rendering keeps them.
_OPEN, _CLOSE = "\ue000", "\ue001"
_OWN = f"{_OPEN}own{_CLOSE}"
_SEEN = f"{_OPEN}seen{_CLOSE}"

# Enough for the rollouts of a group, which share most of their texts. Not more: contexts may be long.
_REMEMBERED = 64


def join(parts: Sequence[str | None]) -> str:
    """The parts that are not empty, separated by blank lines."""
    return "\n\n".join(part for part in parts if part)


# Messages as a cache key: the author and the text of each
Said = tuple[tuple[str, str], ...]


def _said(messages: Sequence[Message]) -> Said:
    return tuple((message.agent, message.heard) for message in messages)


def _quote(said: Said, observation: str = "") -> tuple[list[str], dict[str, str]]:
    """
    What is read before an agent speaks, with placeholders, and the text for each: an observation, if there is one, and
    others' messages as `name: placeholder`.
    """
    lines: list[str] = [_SEEN] if observation else []
    untrusted: dict[str, str] = {_SEEN: observation} if observation else {}
    for i, (agent, text) in enumerate(said):
        # An empty message has no placeholder, so that a template that strips turns strips the blank after the colon
        place = f"{_OPEN}{i}{_CLOSE}" if text.strip() else ""
        lines.append(f"{agent}: {place}")
        untrusted |= {place: text.strip()} if place else {}
    return lines, untrusted


def add_to_last_user_turn(turns: list[dict], blocks: Sequence[str | None]):
    """Append `blocks` to the last turn of a conversational prompt, or as one more turn if that is not the user's."""
    added = join(blocks)
    if not added:
        return
    if turns and turns[-1]["role"] == "user":
        turns[-1]["content"] = join([turns[-1]["content"], added])
    else:
        turns.append({"role": "user", "content": added})


class PlainRenderer:
    """
    Plain text for prompts in TRL's standard format (a string), whether or not the tokenizer has a chat template.

    Blocks are separated by a blank line: the system prompt, the prompt, the private prompt, and `name: text` for each
    message. In a team of more than one, the agent's own name and a colon come last. If nothing is added to the prompt,
    the ids are those that `GRPOTrainer` uses.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The agent's tokenizer.
        name (`str`): The agent's name.
        system_prompt (`str`, *optional*): The agent's system prompt.
        alone (`bool`): Whether the team has one agent.
        forgets (`bool`): Whether the agent reads its earlier messages without its thoughts ([`~PlainRenderer.history`]).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        system_prompt: str | None,
        alone: bool,
        forgets: bool = False,
    ):
        self.tokenizer, self.forgets = tokenizer, forgets
        self.encoder = SafeEncoder(tokenizer)
        self.system_prompt = system_prompt
        self.name = name
        self.cue = None if alone else f"{name}:"
        # What the tokenizer puts in front of a prompt, such as a beginning-of-sequence token
        with_special, bare = tokenizer("x")["input_ids"], tokenizer("x", add_special_tokens=False)["input_ids"]
        starts = (i for i in range(len(with_special)) if with_special[i : i + len(bare)] == bare)
        self._prefix = with_special[: next(starts, 0)]
        self._opening = functools.lru_cache(_REMEMBERED)(self._encode_opening)
        self._between = functools.lru_cache(_REMEMBERED)(self._encode_between)

    def opening(self, transcript: Transcript, messages: Sequence[Message]) -> list[int]:
        assert isinstance(transcript.prompt, str)  # a speaker reads conversational prompts with a `ChatRenderer`
        private, seen = transcript.private.get(self.name), transcript.observations.get(self.name, "")
        return list(self._opening(transcript.prompt, private, _said(messages), seen))

    def between(self, messages: Sequence[Message], own: Sequence[int]) -> tuple[int, list[int]]:
        return own[-1], list(self._between(_said(messages)))

    def history(self, transcript: Transcript, messages: Sequence[Message]) -> list[int]:
        """What is read before another message of the agent: its own are `name: text` as the others'."""
        return self.opening(transcript, messages)

    def check_turns(self):
        """Never raises: without a template, any turn can be shown."""

    def _encode_opening(self, prompt: str, private: str | None, said: Said, seen: str) -> list[int]:
        lines, untrusted = _quote(said, seen)
        spoke = any(agent == self.name for agent, _ in said)
        blocks = [self.system_prompt, prompt, private, *lines, f"{self.name}:" if spoke else self.cue]
        if blocks == [None, prompt, None, None]:
            return self.tokenizer(text=prompt)["input_ids"]
        return self._prefix + self.encoder.encode(join(blocks), untrusted)

    def _encode_between(self, said: Said) -> list[int]:
        lines, untrusted = _quote(said)
        return self.encoder.encode("\n\n" + join([*lines, self.cue or f"{self.name}:"]), untrusted)


class ChatRenderer:
    """
    The reader's own chat template, for conversational prompts.

    The system prompt comes first (in front of the row's own, if it has one; at the start of the first user turn, if
    the template has no system role). What the agent reads before it first speaks is one user turn, since most
    templates require alternating roles: the last user message of the prompt, the private prompt, and the messages so
    far, each with its author's name, separated by blank lines. Messages between two of its own are one user turn too.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The agent's tokenizer, with a chat template.
        name (`str`): The agent's name.
        system_prompt (`str`, *optional*): The agent's system prompt.
        eos_token_ids (`list[int]`): Ids that end the agent's messages.
        template_kwargs (`dict`): Keyword arguments for the template.
        date (`str`, *optional*): Date that the template prints, as `YYYY-MM-DD`; today if not given.
        tools (`list[dict]`, *optional*): JSON schemas of the agent's tools.
        forgets (`bool`): Whether the agent reads its earlier messages without its thoughts ([`~ChatRenderer.history`]).

    Attributes:
        results ([`ResultRenderer`]): Encodes what its tools return.

    Raises:
        `ValueError`: If the tokenizer has no chat template.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        system_prompt: str | None,
        eos_token_ids: Sequence[int],
        template_kwargs: dict[str, Any],
        date: str | None = None,
        tools: Sequence[dict] = (),
        forgets: bool = False,
    ):
        if tokenizer.chat_template is None:
            raise ValueError(
                f"The prompts are conversational, but the tokenizer of agent {name!r} has no chat template. Set "
                "`tokenizer.chat_template`, use an instruction-tuned model, or pass prompts as plain strings, which "
                "are rendered without a template."
            )
        self.tokenizer, self.forgets = tokenizer, forgets
        self.encoder = SafeEncoder(tokenizer)
        self.system_prompt = system_prompt
        self.name = name
        self.eos_token_ids = set(eos_token_ids)
        template = tokenizer.get_chat_template(template_kwargs.get("chat_template"))
        self.template_kwargs = {**template_kwargs, "chat_template": with_date(template, date)}
        # Not an empty list, for which Llama's template writes an introduction to no tools
        self.template_kwargs |= {"tools": list(tools)} if tools else {}
        # Templates of some vision-language models take text only as a block, and leave out a plain string
        self._in_blocks = False
        if not self._shows("user"):
            self._in_blocks = True
            self._in_blocks = self._shows("user")
        self._fold_system = not self._shows("system")
        self._shown: set[tuple[str, ...]] = set()
        self._opening = functools.lru_cache(_REMEMBERED)(self._encode_opening)
        self._between = functools.lru_cache(_REMEMBERED)(self._encode_between)
        # Rendered with placeholders, so that it is reused for all texts by the same authors
        self._template = functools.lru_cache(_REMEMBERED)(self._render_opening)
        self.results = ResultRenderer(self._render, self.encoder, self.eos_token_ids, name)
        self._own_turns = OwnTurns(self._render, tools)
        self._history = functools.lru_cache(_REMEMBERED)(self._encode_history)

    def opening(self, transcript: Transcript, messages: Sequence[Message]) -> list[int]:
        private, seen = transcript.private.get(self.name), transcript.observations.get(self.name, "")
        return list(self._opening(json.dumps(transcript.prompt), private, _said(messages), seen))

    def between(self, messages: Sequence[Message], own: Sequence[int]) -> tuple[int, list[int]]:
        return self._close(own, self._between(_said(messages)))

    def history(self, transcript: Transcript, messages: Sequence[Message]) -> list[int]:
        """What is read before another message of the agent, as the template renders `messages`, its own without thoughts."""
        private, seen = transcript.private.get(self.name), transcript.observations.get(self.name, "")
        said = [(m.agent, json.dumps(m.as_dicts()) if m.agent == self.name else m.heard) for m in messages]
        return list(self._history(json.dumps(transcript.prompt), private, tuple(said), seen))

    def _encode_opening(self, prompt: str, private: str | None, said: Said, seen: str) -> list[int]:
        lines, untrusted = _quote(said, seen)
        return self.encoder.encode(self._template(prompt, private, tuple(lines)), untrusted)

    def _render_opening(self, prompt: str, private: str | None, lines: tuple[str, ...]) -> str:
        turns = json.loads(prompt)
        add_to_last_user_turn(turns, [private, *lines])
        self._add_system_prompt(turns)
        self._check_shown(tuple(turn["role"] for turn in turns))
        return self._render_prompt(turns)

    def _encode_history(self, prompt: str, private: str | None, said: Said, seen: str) -> list[int]:
        texts, turns = Texts(), json.loads(prompt)
        heard: list[str | None] = [private, texts.put(seen)]
        for agent, text in said:
            if agent != self.name:
                heard.append(f"{agent}: {texts.put(text.strip())}")
                continue
            add_to_last_user_turn(turns, heard)
            turns += self._own_turns.make(json.loads(text), texts, lambda: self.results.escapes)
            heard = []
        add_to_last_user_turn(turns, heard)
        self._add_system_prompt(turns)
        return self.encoder.encode(self._render_prompt(turns), texts.untrusted)

    def _encode_between(self, said: Said) -> list[int]:
        lines, untrusted = _quote(said)
        return self.encoder.encode(self._render_after_own(join(lines)), untrusted)

    def _close(self, own: Sequence[int], after: list[int]) -> tuple[int, list[int]]:
        """
        What is read in place of the last id of the message `own`, and after it, where the template writes `after`.

        The token that ends a message need not be the one that closes it in the template: it may be another of the
        model's (`<|return|>`, where the template writes `<|end|>`), or the template may write the next role instead.
        """
        last, ends = own[-1], self.eos_token_ids
        # What the agent wrote of the closing itself, which may have several control tokens
        controls = itertools.takewhile(lambda token: token in ends or token in self.encoder.control_ids, after)
        for length in range(min(len(own), len(list(controls))), 0, -1):
            if list(own[-length:]) == after[:length]:
                return last, after[length:]
        if last not in ends or not after:
            return last, list(after)
        if last in after:
            place = after.index(last)
            before: Any = self.tokenizer.decode(after[:place])  # a string, since it is one sequence
            if not before.strip():
                return last, after[place + 1 :]
        return after[0], after[1:]

    def ending(self) -> int | None:
        """The id with which the template ends an assistant turn, if that is one that ends the agent's messages."""
        after = self.encoder.encode(self._render_after_own(""))
        return next((token for token in after if token in self.eos_token_ids), None)

    def calling(self, turn: dict) -> list[int]:
        """
        The ids with which the template writes an assistant's `turn` with `tool_calls`, from where the agent begins it to the id
        that ends it.
        """
        user = {"role": "user", "content": "dummy"}
        begun, whole = (self.encoder.encode(self._render(*case)) for case in (([user], True), ([user, turn], False)))
        shared = next((i for i, pair in enumerate(zip(begun, whole, strict=False)) if pair[0] != pair[1]), len(begun))
        written = whole[shared:]
        end = next((i for i, token in enumerate(written) if token in self.eos_token_ids), len(written) - 1)
        return written[: end + 1]

    def check_turns(self):
        """Raise `ValueError` unless the template can show other agents' messages after one of the agent's own."""
        try:
            rendered = self._render_after_own("text")
        except TemplateError as error:
            raise ValueError(
                f"The chat template of agent {self.name!r} cannot take other agents' turns: rendering a user turn "
                f"after an assistant turn fails with «{error}». Use a template that allows it (set "
                "`processing_class`), or one round, in which the agent speaks once."
            ) from error
        if "text" not in rendered:
            raise ValueError(
                f"The chat template of agent {self.name!r} cannot take other agents' turns: it leaves out a user turn "
                "after an assistant turn. Use another template, or one round."
            )

    def _check_shown(self, roles: tuple[str, ...]):
        """Raise `ValueError` if the template leaves out the user's turn at the end of a prompt with these `roles`."""
        if roles in self._shown or roles[-1] != "user":
            return
        turns = [{"role": role, "content": "dummy"} for role in roles[:-1]] + [{"role": "user", "content": _OWN}]
        if _OWN not in self._render_prompt(turns):
            raise ValueError(
                f"The chat template of agent {self.name!r} leaves out what the user's turn says, as text and as a block "
                "{'type': 'text', 'text': ...}. Set `processing_class` to a tokenizer whose template shows it."
            )
        self._shown.add(roles)

    def _render_prompt(self, turns: list[dict]) -> str:
        """Raise `ValueError` if the template refuses the turns, else render them."""
        try:
            return self._render(turns)
        except TemplateError as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise ValueError(
                f"The chat template of agent {self.name!r} refuses the prompt, whose turns in the agent's view are {roles}: "
                f"«{error}». Change the prompt, or set `processing_class` to a tokenizer whose template takes it."
            ) from error

    def _render(self, turns: list[dict], add_generation_prompt: bool = True) -> str:
        if self._in_blocks:
            turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        rendered: Any = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt, **self.template_kwargs
        )
        return rendered  # a string, since it is not tokenized

    def _render_after_own(self, text: str) -> str:
        turns = [{"role": "user", "content": "dummy"}, {"role": "assistant", "content": _OWN}]
        rendered = self._render(turns + ([{"role": "user", "content": text}] if text else []))
        before, own, suffix = rendered.partition(_OWN)
        if not own:
            raise ValueError(
                f"The chat template of agent {self.name!r} does not show an assistant turn as it was written, so the "
                "ids after it cannot be found. Use another template, or one round."
            )
        return suffix

    def _shows(self, role: str) -> bool:
        """Whether the template shows what a turn of `role` says, at the beginning of a conversation."""
        turns = [{"role": role, "content": _OWN}, {"role": "user", "content": "dummy"}]
        try:
            return _OWN in self._render(turns if role != "user" else turns[:1])
        except TemplateError:  # how a template rejects an unknown role, or content in another form
            return False

    def _add_system_prompt(self, turns: list[dict]):
        system = self.system_prompt
        if turns and turns[0]["role"] == "system":
            system = join([system, turns.pop(0)["content"]])
        if not system:
            return
        if self._fold_system and turns:
            turns[0]["content"] = join([system, turns[0]["content"]])
        else:
            turns.insert(0, {"role": "system", "content": system})


# Provides the ids before an agent's first message; and, after one of its own, the id read in place of its last one, and
# those that follow up to its next message
Renderer = PlainRenderer | ChatRenderer
