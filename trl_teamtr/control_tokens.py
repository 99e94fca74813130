"""Encoding text that other agents wrote: whatever it says, it stays text and can forge no turn."""

import re

from transformers import PreTrainedTokenizerBase


class SafeEncoder:
    """
    Encodes rendered templates in which untrusted text stands.

    A tokenizer turns every occurrence of one of its added tokens (`<|im_end|>`, `</s>`, ...) into that token's id,
    wherever the string came from. Here only the template's own occurrences become control tokens; those in a message
    are broken up and encoded as ordinary text. Text without control strings is encoded in one piece, exactly as the
    chat template of transformers would.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The reader's tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        # Blank and one-character added tokens (runs of spaces, say) open no turn and cannot be broken up.
        controls = [t.content for t in tokenizer.added_tokens_decoder.values() if len(t.content.strip()) > 1]
        controls.sort(key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, controls))) if controls else None

    def count(self, text: str) -> int:
        """Number of control tokens that the tokenizer would read in `text`."""
        return len(self._control.findall(text)) if self._control else 0

    def encode(self, template: str, untrusted: dict[str, str] | None = None) -> list[int]:
        """
        Token ids of `template` with each placeholder replaced by its untrusted text.

        Args:
            template (`str`): Rendered text with placeholders. Its control strings become control tokens.
            untrusted (`dict[str, str]`, *optional*): Text for each placeholder. Its control strings stay text.

        Returns:
            `list[int]`: Token ids, without special tokens at the ends.
        """
        text = self._fill(template, untrusted)
        if not untrusted or self.count(text) == self.count(template):
            return self._encode(text)
        ids, start = [], 0
        for match in self._control.finditer(template):
            ids += self._encode_as_text(self._fill(template[start : match.start()], untrusted))
            ids.append(self.tokenizer.convert_tokens_to_ids(match.group()))
            start = match.end()
        return ids + self._encode_as_text(self._fill(template[start:], untrusted))

    def _fill(self, template: str, untrusted: dict[str, str] | None) -> str:
        if not untrusted:
            return template
        # One pass: a placeholder that an agent manages to write is not replaced in its turn
        pattern = "|".join(map(re.escape, untrusted))
        return re.sub(pattern, lambda match: untrusted[match.group()], template)

    def _encode_as_text(self, text: str) -> list[int]:
        # Cutting a control string after its first character leaves two pieces that the tokenizer cannot recognise
        ids, start, search = [], 0, 0
        while (match := self._control.search(text, search)) is not None:
            cut = match.start() + 1
            ids += self._encode(text[start:cut])
            start = search = cut
        return ids + self._encode(text[start:])

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
