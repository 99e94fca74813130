"""What ZeRO-3 has partitioned is saved, and read, to the bit: every architecture, and adapters."""

import pytest
import torch
from families import FAMILIES, make_family
from launching import derive_config, launch
from peft import get_peft_model
from safetensors.torch import load_file
from teams import lora
from tiny import make_model
from transformers import AutoModelForCausalLM


ADAPTERS = {
    "lora": {},
    "dora": {"use_dora": True},
    "biases": {"bias": "lora_only"},
    "modules_to_save": {"modules_to_save": ["lm_head"]},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two models of each kind, and what was saved of them on two processes."""
    models, output = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("output")
    for seed, name in enumerate(("one", "two")):
        for kind in FAMILIES:
            make_family(kind, seed).save_pretrained(models / kind / name)
        for kind, fields in ADAPTERS.items():
            make_model().save_pretrained(models / kind / "base")
            base = AutoModelForCausalLM.from_pretrained(models / kind / "base")
            torch.manual_seed(seed)
            get_peft_model(base, lora(**fields)).save_pretrained(models / kind / name)
    launch(derive_config("zero3", output), "run_weights.py", models, output)
    return models, output


@pytest.mark.parametrize("kind", [*FAMILIES, *ADAPTERS])
def test_it_is_saved_and_read_to_the_bit(folders, kind):
    models, output = folders
    file = "adapter_model.safetensors" if kind in ADAPTERS else "model.safetensors"
    one, two = (load_file(models / kind / name / file) for name in ("one", "two"))
    assert any(not torch.equal(one[key], two[key]) for key in one)
    for name in ("saved", "read"):
        torch.testing.assert_close(load_file(output / kind / name / file), one, rtol=0, atol=0)
