"""Encodes text by other agents as text, so that it cannot forge a turn, whatever it contains."""

import re

from transformers import PreTrainedTokenizerBase


class SafeEncoder:
    """
    Encodes rendered templates that contain untrusted text.

    A tokenizer turns every occurrence of one of its added tokens (`<|im_end|>`, `</s>`, ...) into that token's id,
    wherever the string comes from. Here only the template's own occurrences become control tokens. Where such a
    string overlaps untrusted text, it is split, and the pieces are encoded separately. Text without such strings is
    encoded in one piece, exactly as `apply_chat_template` of transformers does.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The reader's tokenizer.

    Attributes:
        control_ids (`set[int]`): Ids of its control tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        # Blank and one-character added tokens (e.g. runs of spaces) start no turn and cannot be split.
        controls = {i: t for i, t in tokenizer.added_tokens_decoder.items() if len(t.content.strip()) > 1}
        strings = sorted((token.content for token in controls.values()), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, strings))) if strings else None
        self.control_ids = set(controls) - {tokenizer.unk_token_id}  # every unknown character has that one
        # Such tokens are matched after normalization (lower case, NFKC), which turns other strings into theirs.
        self._normalized = any(token.normalized for token in controls.values())

    def encode(self, template: str, untrusted: dict[str, str] | None = None) -> list[int]:
        """
        Token ids of `template` with each placeholder replaced by its untrusted text.

        Args:
            template (`str`): Rendered text with placeholders. Its control strings become control tokens.
            untrusted (`dict[str, str]`, *optional*): Text for each placeholder. Its control strings stay text.

        Returns:
            `list[int]`: Token ids, without special tokens at the ends.

        Raises:
            `ValueError`: If the tokenizer finds a control token even in the single characters of the text.
        """
        if not untrusted:
            return self._encode(template)
        text, spans = self._fill(template, untrusted)
        ids = self._encode_in_pieces(text, self._find_cuts(text, spans))
        if self._normalized and self._controls(ids) != (wanted := self._controls(self._encode(template))):
            every_character = [i for start, end in spans for i in range(start, end + 1)]
            ids = self._encode_in_pieces(text, every_character)
            if self._controls(ids) != wanted:
                raise ValueError(
                    "The tokenizer finds control tokens in single characters of a message, so other agents' messages "
                    "cannot be encoded as text. Use a tokenizer whose control tokens are not normalized."
                )
        return ids

    def end_of_text(self, template: str) -> int:
        """Where the control strings and blanks begin with which `template` ends."""
        end = len(template)
        for match in reversed(list(self._control.finditer(template) if self._control else ())):
            if template[match.end() : end].strip():
                break
            end = match.start()
        return len(template[:end].rstrip())

    def _controls(self, ids: list[int]) -> list[int]:
        return [i for i in ids if i in self.control_ids]

    @staticmethod
    def _fill(template: str, untrusted: dict[str, str]) -> tuple[str, list[tuple[int, int]]]:
        """The filled template, and the spans of the untrusted text in it."""
        text, spans, start = "", [], 0
        # One pass, so that a placeholder inside untrusted text is not replaced
        for match in re.finditer("|".join(map(re.escape, untrusted)), template):
            text += template[start : match.start()]
            spans.append((len(text), len(text) + len(untrusted[match.group()])))
            text, start = text + untrusted[match.group()], match.end()
        return text + template[start:], spans

    def _find_cuts(self, text: str, spans: list[tuple[int, int]]) -> list[int]:
        """Where to cut `text`: after the first character of each control string that overlaps untrusted text."""
        cuts, search = [], 0
        while self._control and (match := self._control.search(text, search)) is not None:
            forged = any(match.start() < end and start < match.end() for start, end in spans)
            search = match.start() + 1 if forged else match.end()
            if forged:
                cuts.append(search)
        return cuts

    def _encode_in_pieces(self, text: str, cuts: list[int]) -> list[int]:
        edges = [0, *cuts, len(text)]
        return [i for start, end in zip(edges, edges[1:], strict=False) for i in self._encode(text[start:end])]

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
