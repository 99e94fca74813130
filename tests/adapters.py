"""Small adapters, and where their weights are."""

import torch
from peft import LoraConfig


IDS = torch.tensor([[3, 8, 9, 5, 4]])


def lora():
    return LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def pointers(model):
    """Addresses of all weights that belong to the base, by name."""
    parameters = {
        n.replace("base_model.model.", "").replace(".base_layer", ""): p for n, p in model.named_parameters()
    }
    return {name: p.data_ptr() for name, p in parameters.items() if "lora_" not in name}


def change_adapter(model, value):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(value)


@torch.no_grad()
def logits(model):
    return model.eval()(IDS).logits
