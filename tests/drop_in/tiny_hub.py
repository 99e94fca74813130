"""The models and datasets that TRL's tests name, made here in the layout of the Hub's cache, for runs without network."""

import importlib.util
import json
import re
import sys
from importlib.resources import files
from pathlib import Path

import torch
from datasets import DatasetDict
from families import SMALL
from tokenizers import AddedToken
from tokenizers_for_tests import chatml_tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)


ORGANIZATION = "trl-internal-testing"

# Name: architecture, TRL's chat template for it, and what its config needs besides that of tests/families.py
MODELS = {
    "tiny-Cohere2ForCausalLM": ("cohere2", "cohere2", {}),
    "tiny-Gemma2ForCausalLM": ("gemma2", "gemma", {"query_pre_attn_scalar": 8, "tie_word_embeddings": True}),
    "tiny-Glm4MoeForCausalLM": (
        "glm4_moe",
        "glm4moe",
        {"first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "num_key_value_heads": 2},
    ),
    "tiny-GptOssForCausalLM": ("gpt_oss", "gptoss", {}),
    "tiny-NemotronHForCausalLM-nano": (
        "nemotron_h",
        "nemotron_3_nano",
        {
            "layers_block_type": ["mamba", "attention", "moe"],
            "num_hidden_layers": 3,
            "mamba_num_heads": 8,
            "mamba_head_dim": 4,
            "n_groups": 1,
            "ssm_state_size": 8,
            "moe_shared_expert_intermediate_size": 16,
            "use_mamba_kernels": False,
        },
    ),
    "tiny-Qwen2ForCausalLM-2.5": ("qwen2", "qwen2_5", {}),
    "tiny-Qwen3ForCausalLM": ("qwen3", "qwen3", {"tie_word_embeddings": False}),
    "tiny-Qwen3MoeForCausalLM": ("qwen3_moe", "qwen3", {"mlp_only_layers": [], "decoder_sparse_step": 1}),
}
CLASSIFIERS = {
    "tiny-LlamaForSequenceClassification-3.2": ("llama", "llama3_2"),
    "tiny-Qwen2ForSequenceClassification-2.5": ("qwen2", "qwen2_5"),
    "tiny-Qwen3ForSequenceClassification": ("qwen3", "qwen3"),
}
OWN_CODE = "tiny-RemoteForCausalLM"

# A second revision of this model has the size of the real vocabulary, since some tests write down its ids, or count on
# an end of sequence that is hardly ever sampled. All others run on a small vocabulary, which is much faster.
WIDE, WIDE_VOCABULARY, WIDE_IDS = "tiny-Qwen2ForCausalLM-2.5", 151936, {"<|endoftext|>": 151643, "<|im_end|>": 151645}
PLAIN_COMMIT, WIDE_COMMIT = "0" * 40, "1" * 40

_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class RemoteConfig(LlamaConfig):
    model_type = "remote"

class RemoteForCausalLM(LlamaForCausalLM):
    config_class = RemoteConfig
"""


def make_hub(cache: Path, datasets: Path, checkout: Path):
    """Write all models into `cache`, and the datasets that the script of `checkout` makes into `datasets`."""
    for name, (kind, template, fields) in MODELS.items():
        tokenizer = make_tokenizer(template)
        _save(cache, name, make_model(AutoModelForCausalLM, kind, len(tokenizer), **fields), tokenizer)
    for name, (kind, template) in CLASSIFIERS.items():
        tokenizer = make_tokenizer(template)
        tokenizer.add_tokens([AddedToken("<|finetune_right_pad_id|>", special=True)])
        model = make_model(AutoModelForSequenceClassification, kind, len(tokenizer), num_labels=1)
        _save(cache, name, model, tokenizer)
    tokenizer = widen(make_tokenizer("qwen2_5"))
    _save(cache, WIDE, make_model(AutoModelForCausalLM, "qwen2", WIDE_VOCABULARY), tokenizer, WIDE_COMMIT)
    set_revision(cache, WIDE, PLAIN_COMMIT)
    _save_own_code(cache)
    _make_datasets(datasets, checkout)


def make_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """A small tokenizer with one of the chat templates that TRL ships, whose control strings are tokens."""
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = files("trl").joinpath(f"chat_templates/{template}.jinja").read_text(encoding="utf-8")
    controls = sorted(set(re.findall(r"<\|[^|<>{}']+\|>|<(?:start|end)_of_turn>", tokenizer.chat_template)))
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in controls])
    return tokenizer


def make_model(auto: type, kind: str, vocabulary: int, **fields) -> PreTrainedModel:
    """A random model of the architecture `kind`, small in all but its vocabulary."""
    plain = AutoConfig.for_model(kind).to_dict()
    sizes = {
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "sliding_window": 64,
        "initializer_range": 0.02,
    }
    small = {name: value for name, value in (SMALL | sizes).items() if name in plain}
    config = AutoConfig.for_model(kind, **(small | fields))
    torch.manual_seed(0)
    return auto.from_config(config)


def widen(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same tokenizer with its control tokens at the ids of the real vocabulary."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in content["added_tokens"]:
        token["id"] = WIDE_IDS.get(token["content"], token["id"])
    vocabulary = content["model"]["vocab"]
    vocabulary |= WIDE_IDS
    backend = type(tokenizer.backend_tokenizer).from_str(json.dumps(content))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=tokenizer.pad_token,
        eos_token=tokenizer.eos_token,
        chat_template=tokenizer.chat_template,
    )


def set_revision(cache: Path, name: str, commit: str):
    """Let the main branch of a model point to one of its revisions."""
    (cache / f"models--{ORGANIZATION}--{name}" / "refs" / "main").write_text(commit)


def _save(cache: Path, name: str, model, tokenizer, commit: str = PLAIN_COMMIT) -> Path:
    repository = cache / f"models--{ORGANIZATION}--{name}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    folder = repository / "snapshots" / commit
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model.config.get_text_config().update({**ends, "bos_token_id": None})
    if model.can_generate():
        model.generation_config.update(**ends, bos_token_id=None)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    set_revision(cache, name, commit)
    return folder


def _save_own_code(cache: Path):
    tokenizer = make_tokenizer("llama3_2")
    folder = _save(cache, OWN_CODE, make_model(AutoModelForCausalLM, "llama", len(tokenizer)), tokenizer)
    (folder / "modeling_remote.py").write_text(_CODE)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "remote", "architectures": ["RemoteForCausalLM"]}
    config["auto_map"] = {
        "AutoConfig": "modeling_remote.RemoteConfig",
        "AutoModelForCausalLM": "modeling_remote.RemoteForCausalLM",
    }
    (folder / "config.json").write_text(json.dumps(config))


def _make_datasets(folder: Path, checkout: Path):
    """What the checkout's own script would push to the Hub, as Parquet files."""
    spec = importlib.util.spec_from_file_location("generate_zen", checkout / "scripts" / "generate_zen_dataset.py")
    assert spec is not None and spec.loader is not None, checkout
    script = importlib.util.module_from_spec(spec)
    sys.modules["generate_zen"] = script  # its dataclass looks its module up
    spec.loader.exec_module(script)

    def keep(dataset: DatasetDict, repo_id: str, config_name: str):
        for split, rows in dataset.items():
            path = folder / repo_id / config_name / f"{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows.to_parquet(path)

    pushed, DatasetDict.push_to_hub = DatasetDict.push_to_hub, keep
    try:
        script.main(test_size=0.1, push_to_hub=True, repo_id=f"{ORGANIZATION}/zen")
    finally:
        DatasetDict.push_to_hub = pushed
