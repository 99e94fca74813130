"""The model below the adapters."""

from typing import Any

from peft import PeftModel


def without_adapters(model: Any) -> Any:
    """`model` without its adapters: itself if it has none."""
    return model.get_base_model() if isinstance(model, PeftModel) else model
