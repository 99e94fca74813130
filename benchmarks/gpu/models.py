"""Models of Qwen3's shapes with random weights, made on the device, and what is trained on them."""

import random
import string


SHAPES = {
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "1.7B": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
    "8B": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
    "smoke": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "vocab_size": 512,
    },
}
# So that a policy of random weights is no more even than a trained one: logits then spread by 3, not by 0.6
SHARPNESS = 5.0


def find_device():
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_model(shape: str, dtype: str = "float32", seed: int = 0):
    """A model on the device."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    common = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960}
    config = Qwen3Config(
        **common | SHAPES[shape], tie_word_embeddings=shape != "8B", eos_token_id=None, pad_token_id=None, dtype=dtype
    )
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with find_device():
            model = Qwen3ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        model.model.norm.weight.mul_(SHARPNESS)
    return model.eval()


def make_tokenizer(vocab_size: int):
    """One token for each letter, and `<number>` for each other id, so that messages of a random model can be read."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [*string.ascii_letters, "<pad>", "<end>", "<unknown>"]
    tokens += [f"<{i}>" for i in range(len(tokens), vocab_size)]
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unknown>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"<\d+>|[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    special = {"pad_token": "<pad>", "eos_token": "<end>", "unk_token": "<unknown>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, padding_side="left", **special)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


def make_prompts(count: int, length: int) -> list[list[dict[str, str]]]:
    """Prompts of `length` characters, which are as many tokens."""
    return [
        [{"role": "user", "content": "".join(random.Random(i).choices(string.ascii_letters, k=length))}]
        for i in range(count)
    ]


def reward(completion_ids, **kwargs):
    """Differs from rollout to rollout."""
    return [float(sum(ids) % 7) for ids in completion_ids]
