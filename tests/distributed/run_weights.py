"""Saves models and adapters that ZeRO-3 has partitioned: as they are, and as they are once they were read into others."""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from peft import PeftModel
from tiny import make_config
from transformers import AutoModelForCausalLM

from trl_teamtr.agents.gathering import gather_weights
from trl_teamtr.runs.weights import load_weights


def load(folder: Path):
    """The model in `folder`, or the adapter with its base."""
    if not (folder / "adapter_config.json").exists():
        return AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    base = AutoModelForCausalLM.from_pretrained(folder.parent / "base")
    return PeftModel.from_pretrained(base, folder, is_trainable=True)


def save(model, folder: Path, accelerator: Accelerator):
    weights = gather_weights(model, accelerator)
    assert (weights is not None) == accelerator.is_main_process
    if weights is not None:
        model.save_pretrained(folder, state_dict=weights)


if __name__ == "__main__":
    models, output = Path(sys.argv[1]), Path(sys.argv[2])
    args = make_config(output)  # while it is there, transformers partitions what it loads
    accelerator = Accelerator()
    for folder in sorted(models.iterdir()):
        one, two = load(folder / "one"), load(folder / "two")
        assert any(vars(weight).get("ds_numel") for weight in one.parameters())
        save(one, output / folder.name / "saved", accelerator)
        load_weights(two, str(folder / "one"))
        save(two, output / folder.name / "read", accelerator)
    torch.distributed.destroy_process_group()
