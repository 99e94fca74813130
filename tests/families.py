"""Tiny random models of real architectures."""

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText


# What makes any config small; a config takes those of these that it has
SMALL = {
    "vocab_size": 16,
    "hidden_size": 16,
    "n_embd": 16,
    "d_model": 16,
    "word_embed_proj_dim": 16,
    "intermediate_size": 32,
    "ffn_dim": 32,
    "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 8,
    "num_hidden_layers": 2,
    "n_layer": 2,
    "num_attention_heads": 2,
    "n_head": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "sliding_window": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}

# Architecture, and what else it needs to be small and whole
FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {},
    "gemma": {},
    "gemma2": {"query_pre_attn_scalar": 8},
    "gemma3_text": {"query_pre_attn_scalar": 8},
    "phi": {},
    "phi3": {},
    "gpt2": {},
    "gpt_neox": {},
    "opt": {},
    "bloom": {},
    "falcon": {},
    "cohere": {},
    "cohere2": {},
    "olmo": {},
    "olmo2": {},
    "granite": {},
    "stablelm": {},
    "starcoder2": {},
    "glm": {"partial_rotary_factor": 0.5},
    "smollm3": {},
    "mixtral": {},
    "qwen3_moe": {"mlp_only_layers": [], "decoder_sparse_step": 1},
    "olmoe": {},
    "granitemoe": {},
    "gpt_oss": {},
    "deepseek_v3": {
        "kv_lora_rank": 8,
        "q_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 8,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "num_key_value_heads": 2,
    },
    "mamba": {"state_size": 4, "time_step_rank": 2},
    "bamba": {
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 4,
        "attn_layer_indices": [1],
        "mamba_n_groups": 1,
    },
    "recurrent_gemma": {"lru_width": 16, "num_hidden_layers": 3},
    "lfm2": {"full_attn_idxs": [1], "block_multiple_of": 8},
}

# Rotary embeddings that are scaled once a row is longer than `original_max_position_embeddings`
LONGROPE = {
    "original_max_position_embeddings": 16,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 16,
    },
}


_VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_PATCHES = {"image_size": 28, "patch_size": 14}
_TEXT = {
    **_VISION,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "initializer_range": 0.4,
    "vocab_size": 8,
}
_TEXT |= {"eos_token_id": 1, "pad_token_id": 1, "bos_token_id": None}

# Vision-language models: the configs of both halves, and the rest
VISION_FAMILIES = {
    "qwen2_vl": {
        "text_config": {
            **_TEXT,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
        },
        "vision_config": {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 16, "mlp_ratio": 2},
        "image_token_id": 3,
        "video_token_id": 4,
        "vision_start_token_id": 5,
        "vision_end_token_id": 6,
    },
    "gemma3": {
        "text_config": {**_TEXT, "head_dim": 8, "query_pre_attn_scalar": 8},
        "vision_config": {**_VISION, **_PATCHES},
        "image_token_index": 3,
        "mm_tokens_per_image": 4,
        "boi_token_index": 4,
        "eoi_token_index": 5,
    },
    "llava": {
        "text_config": {**_TEXT, "model_type": "qwen2"},
        "vision_config": {**_VISION, **_PATCHES, "model_type": "clip_vision_model", "projection_dim": 16},
        "image_token_index": 3,
    },
}


def make_vision_family(kind: str, seed: int) -> transformers.PreTrainedModel:
    """A random vision-language model of an architecture, for 8 token ids."""
    torch.manual_seed(seed)
    return AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind, **VISION_FAMILIES[kind]))


def make_family(kind: str, seed: int, **fields) -> transformers.PreTrainedModel:
    """A random model of an architecture."""
    plain = AutoConfig.for_model(kind)
    own = {name: value for name, value in SMALL.items() if name in plain.to_dict()}
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**own, **FAMILIES[kind], **fields}))
