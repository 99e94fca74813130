"""Three kinds of tokenizer, trained here on a few sentences, each with the control strings and template of a family."""

import re

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Hello, how are you today? I am fine, thank you.",
    "user assistant system model a: b: the answer is 42, and 7 times 6 is 42.",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ",
]

CHATML_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# No system role, and roles must alternate.
INST_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate.') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)

TURN_TEMPLATE = (
    "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def chatml_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with ChatML's control tokens, as in Qwen and SmolLM."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML_TEMPLATE,
    )


def inst_tokenizer() -> PreTrainedTokenizerFast:
    """Unigram over Metaspace with [INST] and [/INST], as in Mistral; puts <s> in front of a prompt."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    controls = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    alphabet = [chr(i) for i in range(33, 127)] + ["\n"]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=controls, unk_token="<unk>", initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["[INST]", "[/INST]"],
        chat_template=INST_TEMPLATE,
    )


def turn_tokenizer() -> PreTrainedTokenizerFast:
    """Lower-casing WordPiece with Gemma's turn tokens, of which one is an added token that is not special."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    alphabet = [chr(i) for i in range(33, 127)]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.add_tokens([AddedToken("<start_of_turn>", special=False, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="<end_of_turn>", chat_template=TURN_TEMPLATE
    )


# What templates write as tokens of their own: <|im_end|>, <｜User｜>, <end_of_turn>, <|turn>, <turn|>, </s>, [INST], [gMASK]
CONTROL = re.compile(r"<\|[^|<>{}]+\|>|<｜[^｜]+｜>|</?\w+>|<\|\w+>|<\w+\|>|\[/?INST\]|\[gMASK\]")


def tokenizer_for(template: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE with all control strings of `template` as tokens, and "<eos>", which ends a message and is none."""
    tokenizer = chatml_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<bos>", "eos_token": "<eos>"})
    thoughts = ["<think>", "</think>"]  # tokens, but not special: decoding keeps them
    tokenizer.add_tokens(thoughts)
    special = sorted(set(CONTROL.findall(template)).difference(thoughts))
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.chat_template = template
    return tokenizer
