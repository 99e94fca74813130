"""Members that take the place of others in the teams of `tiny.py`."""

from tiny import PROMPTS, make_model
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from trl_teamtr import Agent


ROWS = [{"prompt": prompt} for prompt in PROMPTS * 5]


def make_other_tokenizer() -> PreTrainedTokenizerFast:
    """Another vocabulary for the texts of `tiny.make_tokenizer`, with a token for "aa"."""
    vocab = {token: i for i, token in enumerate(["aa", "b", "!", "a", "u", "."])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="u"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"aa|[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=".", pad_token="!", padding_side="left")


def make_newcomer(name: str = "y", seed: int = 9, **fields) -> Agent:
    """A model of another size, with another tokenizer."""
    model = make_model(6, seed, hidden_size=32, eos_token_id=5, pad_token_id=2)
    return Agent(name, model, processing_class=make_other_tokenizer(), **fields)
