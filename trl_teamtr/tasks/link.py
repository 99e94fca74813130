"""
LINK: a chain of agents that must agree on a code.

Each of n agents has a private digit in 0..5 that only it sees. In team order, each writes two symbols: the previous
agent's digit as it reads it, and its own digit as a code letter. The reward is the share of the n - 1 links that were
read correctly. Two dialects exist: in A, digit d is the d-th letter; in B, the letters are swapped in pairs. A freshly
warmed-up agent writes A and reads B most of the time, so that a team understands itself about three times in ten until
its members settle on one dialect. One agent's drift is another's misreading.
"""

import random

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM


LETTERS = "ABCDEF"
NAMES = "abcdefgh"
TASK = [{"role": "user", "content": "?"}]

# One token per role keeps the views of the tiny models short.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def make_dataset(num_agents: int, size: int, seed: int) -> Dataset:
    """
    Rows of LINK: `prompt`, `agent_prompts` (each agent's digit) and `digits`.

    Args:
        num_agents (`int`): Number n of agents, 2 to 8.
        size (`int`): Number of rows.
        seed (`int`): Seed of the digits.

    Raises:
        `ValueError`: If there are too few or too many agents.
    """
    if not 2 <= num_agents <= len(NAMES):
        raise ValueError(f"LINK is a chain of 2 to {len(NAMES)} agents, got {num_agents}.")
    rng = random.Random(seed)
    digits = [[rng.randrange(6) for _ in range(num_agents)] for _ in range(size)]
    private = [{name: str(d) for name, d in zip(NAMES, row, strict=False)} for row in digits]
    return Dataset.from_dict({"prompt": [TASK] * size, "agent_prompts": private, "digits": digits})


def link_reward(transcripts: list[list[dict]], digits: list[list[int]], **kwargs) -> list[float]:
    """Share of the links that the first round read correctly: agent i's first symbol is agent i - 1's digit."""
    rewards = []
    for messages, own in zip(transcripts, digits, strict=True):
        read = [message["content"][:1] == str(d) for message, d in zip(messages[1:], own[:-1], strict=False)]
        rewards.append(sum(read) / (len(own) - 1))
    return rewards


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character, and one per role of the chat template."""
    special = ["<|pad|>", "<|unk|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    vocab = {token: i for i, token in enumerate([*special, *"012345", *LETTERS, *NAMES, *": \n?"])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<|unk|>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    head_dim: int = 16,
    max_length: int = 256,
    hidden_size: int = 64,
    num_layers: int = 2,
    num_heads: int = 4,
) -> Qwen3ForCausalLM:
    """A random Qwen3 model, by default of 0.1 M parameters. vLLM's kernels for the CPU need a `head_dim` of at least 32."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=max_length,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)
