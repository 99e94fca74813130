"""The pieces of a message add up to its text, and none is taken back."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from trl_teamtr.conversation.streaming import IncrementalText


@pytest.fixture
def tokenizer():
    """One id for each byte."""
    vocab = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")
    return tokenizer


@pytest.mark.parametrize("text", ["plain", "naïve – 🙂 日本", ""])
def test_pieces_add_up(tokenizer, text):
    incremental = IncrementalText(tokenizer)
    pieces = [incremental.add(token) for token in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    assert "".join(pieces) == text and "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert incremental.rest(text) == ""


def test_a_character_comes_whole_and_an_unfinished_one_at_the_end(tokenizer):
    incremental = IncrementalText(tokenizer)
    ids = tokenizer("a🙂")["input_ids"]
    assert [incremental.add(token) for token in ids] == ["a", "", "", "", "🙂"]
    cut = IncrementalText(tokenizer)
    assert [cut.add(token) for token in ids[:3]] == ["a", "", ""]
    assert cut.rest(tokenizer.decode(ids[:3])) == "\N{REPLACEMENT CHARACTER}"


def test_a_text_that_a_tokenizer_changes_afterwards_is_not_passed_on_twice(tokenizer, monkeypatch):
    decoded = {1: "don ", 2: "don 't", 3: "don't x"}
    incremental = IncrementalText(tokenizer)
    monkeypatch.setattr(tokenizer, "decode", lambda ids, **kwargs: decoded[len(ids)])
    assert [incremental.add(0) for _ in range(3)] == ["don ", "'t", ""]
    assert incremental.rest("don't x") == ""
