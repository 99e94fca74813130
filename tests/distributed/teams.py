"""Teams, scripted rollouts and probes that are the same for any number of processes."""

import contextlib
import random
from pathlib import Path

import torch
from peft import LoraConfig
from tiny import make_model, make_tokenizer
from transformers import Qwen3ForCausalLM

from trl_teamtr import Agent, Message, TeamTRTrainer, Transcript
from trl_teamtr.conversation.view import View
from trl_teamtr.rollouts.rollouts import Rollouts


KINDS = ("mixed", "shared")


def make_larger_model(seed: int) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = make_model(4).config
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = 24, 40, 2
    config.layer_types = ["full_attention"] * 2
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config)


def save_models(folder: Path):
    """Models on disk, since loading is where ZeRO-3 partitions."""
    tokenizer = make_tokenizer(4)
    for name, model in {"small": make_model(4, 1), "large": make_larger_model(2), "base": make_model(4, 3)}.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    make_larger_model(2).to(torch.bfloat16).save_pretrained(folder / "half")
    tokenizer.save_pretrained(folder / "half")


def lora(**fields) -> LoraConfig:
    # Not the usual zeros for B, so that every weight of the adapter has a gradient at once
    return LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **fields
    )


def make_team(kind: str, folder: Path) -> list[Agent]:
    """
    `"mixed"`: three agents of two sizes, one of them LoRA. `"shared"`: two LoRA agents on one base, and one that only
    speaks, in bfloat16.
    """
    torch.manual_seed(5)
    if kind == "mixed":
        return [
            Agent("x", str(folder / "small")),
            Agent("y", str(folder / "base"), peft_config=lora()),
            Agent("z", str(folder / "large"), learning_rate=2e-2),
        ]
    return [
        Agent("x", str(folder / "base"), peft_config=lora()),
        Agent("f", str(folder / "half"), trainable=False),
        Agent("y", str(folder / "base"), peft_config=lora()),
    ]


def scripted_rollouts(trainer: TeamTRTrainer, rows: list[dict], seed: int) -> Rollouts:
    """Rollouts that depend on a row's place in the global batch alone; the last agent is silent in its second half."""
    first = trainer.accelerator.process_index * len(rows)
    half = trainer.accelerator.num_processes * len(rows) // 2
    tokenizer, transcripts = trainer._tokenizer, []
    views = {member.name: [View() for _ in rows] for member in trainer.members}
    for i, row in enumerate(rows):
        transcript, draw = Transcript(row["prompt"], trainer.team.names), random.Random(f"{seed}/{first + i}")
        for member in trainer.members if first + i < half else trainer.members[:-1]:
            ids = draw.choice([(1,), (0, 1), (2, 1), (3, 1), (2, 3), (3, 2), (2, 0)])
            view = views[member.name][i]
            assert view.read(transcript, member.speaker.renderer_for(row["prompt"]), room=10**6)
            text = tokenizer.decode(ids, skip_special_tokens=True)
            transcript.messages.append(Message(member.name, text, ids, ids[-1] == 1))
            view.write(list(ids), [-1.0] * len(ids))
        transcripts.append(transcript)
    return Rollouts(transcripts, views)


@contextlib.contextmanager
def whole_weights(member):
    """The policy's parameters by name, gathered under ZeRO-3."""
    params = dict(member.model.named_parameters())
    if any("ds_numel" in vars(param) for param in params.values()):
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(params.values())):
            yield params
    else:
        yield params


def weights_of(member) -> dict[str, torch.Tensor]:
    with whole_weights(member) as params:
        return {name: param.detach().clone() for name, param in params.items()}


def gradients_of(member) -> dict[str, torch.Tensor]:
    """The accumulated gradient by name, averaged over processes."""
    params = {name: param for name, param in member.model.named_parameters() if param.requires_grad}
    if member.is_deepspeed_enabled:
        from deepspeed.utils import safe_get_full_grad

        return {name: safe_get_full_grad(param).clone() for name, param in params.items()}
    return {name: param.grad.clone() for name, param in params.items()}


def local_state(member) -> list[torch.Tensor]:
    """All that this process holds of an agent: weights, master weights, moments."""
    tensors = []
    for param in member.model.parameters():
        partition = vars(param).get("ds_tensor")  # ZeRO-3; whether the whole parameter is there too is of no account
        tensors.append(param.detach() if partition is None else partition.detach())
    if member.agent.trainable:
        tensors += member.engine.weights
        for values in member.engine.optimizer.state.values():
            tensors += [value for value in values.values() if isinstance(value, torch.Tensor)]
    return [tensor.clone() for tensor in tensors]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
