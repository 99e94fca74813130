"""Masks secrets, for files and logs."""

import re
from typing import Any


# `hub_token` and, in `model_init_kwargs` and other dicts, `token`, `hf_token`, `wandb_api_key`, `db_password`, ...
# but not, e.g., `num_tokens`
_SECRET = re.compile(r"(^|.*_)(token|secret|password|api_key)", re.IGNORECASE)


def mask_secrets(value: Any) -> Any:
    """
    A copy of `value` in which every string under a key that ends in `token`, `secret`, `password` or `api_key` is
    masked, in dicts and lists at any depth.
    """
    if isinstance(value, dict):
        return {
            key: f"<{key.upper()}>"
            if isinstance(key, str) and isinstance(item, str) and _SECRET.fullmatch(key)
            else mask_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask_secrets(item) for item in value]
    return value
