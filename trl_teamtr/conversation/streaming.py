"""The text of a message while it is being generated."""

from collections.abc import Callable

from transformers import PreTrainedTokenizerBase


# What a tokenizer decodes the first bytes of a character to
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class IncrementalText:
    """
    The text of ids that come one by one, in pieces that add up to what they decode to together.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The author's.
        answer (`Callable[[list[int], str], str]`, *optional*): What is read of ids and their text; all of it if not given.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, answer: Callable[[list[int], str], str] | None = None):
        self._tokenizer, self._answer = tokenizer, answer
        self._ids: list[int] = []
        self.text = ""

    def add(self, token: int) -> str:
        """The text that `token` adds; empty within a character of several ids."""
        self._ids.append(token)
        whole = self._decode()
        # A tokenizer may still change the end of a text: it is passed on when it has not changed what was passed on before
        if whole.endswith(_INCOMPLETE) or not whole.strip() or not whole.startswith(self.text):
            return ""
        return self._pass_on(whole)

    def rest(self, whole: str) -> str:
        """What is missing of the `whole` text of the message, once there are no more ids."""
        return self._pass_on(whole) if whole.startswith(self.text) else ""

    def _decode(self) -> str:
        decoded: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)  # type: ignore[assignment]  # of one row
        return decoded if self._answer is None else self._answer(self._ids, decoded)

    def _pass_on(self, whole: str) -> str:
        piece, self.text = whole[len(self.text) :], whole
        return piece
