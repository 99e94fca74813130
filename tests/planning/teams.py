"""Tiny models on disk and in memory, and their plans."""

import torch
from peft import LoraConfig
from tiny import make_config, make_model, make_tokenizer
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM

from trl_teamtr import Agent, plan
from trl_teamtr.agents.settings import SpeakingSettings
from trl_teamtr.planning.calls import Calls
from trl_teamtr.planning.skeleton import SkeletonMaker


def lora():
    return LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def save_model(folder, **config):
    """A tiny model on disk, and its path."""
    model = make_model()
    for name, value in config.items():
        setattr(model.config, name, value)
    AutoModelForCausalLM.from_config(model.config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


def maker(dtype=None, **settings):
    """What makes skeletons, and what makes calls on them."""
    mode = FakeTensorMode()
    return SkeletonMaker(SpeakingSettings(**settings), dtype, mode), Calls(mode, "no", "float32", False)


def bytes_of(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in {id(t): t for t in tensors}.values())


def all_tensors(model: torch.nn.Module):
    return [*model.parameters(), *model.buffers()]


def plan_of(folder, team, *, prompt_length=8, **fields):
    given = {name: fields.pop(name) for name in ("launch", "device_memory_gib", "calibrate") if name in fields}
    return plan(team, make_config(folder / "run", **fields), prompt_length=prompt_length, **given)


def pair(path, **fields):
    return [Agent(name, path, **fields) for name in "ab"]
