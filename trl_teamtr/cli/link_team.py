"""A team for LINK (docs/tasks.md), warmed up with TRL's `SFTTrainer`."""

import os
import random
import tempfile
from typing import Any

from datasets import Dataset
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from ..agents.agent import Agent
from ..conversation.rendering import add_to_last_user_turn
from ..tasks.link import LETTERS, NAMES, TASK, make_model, make_tokenizer


def _write(digit: int, dialect: str) -> str:
    return LETTERS[digit if dialect == "A" else digit ^ 1]


def make_demonstrations(num_agents: int, size: int, seed: int, noisy: bool, agent: int | None = None) -> Dataset:
    """
    Prompts and completions of LINK as an agent reads and writes them.

    Args:
        num_agents (`int`): Number n of agents.
        size (`int`): Number of demonstrations.
        seed (`int`): Seed.
        noisy (`bool`): Dialects mixed as in a warm start (writes A and reads B 80 % of the time each, with 5 %
            noise), rather than dialect A throughout.
        agent (`int`, *optional*): Position of the agent; sampled if `None`.
    """
    rng = random.Random(seed)

    def say(previous: int | None, own: int) -> str:
        """A message: the reading of the previous message's letter, and the own digit's letter."""
        read, write = ("AB"[rng.random() < 0.8], "BA"[rng.random() < 0.8]) if noisy else ("A", "A")
        digit = 0 if previous is None else previous if read == "A" else previous ^ 1
        letter = _write(own, write)
        if noisy and rng.random() < 0.05:
            digit = rng.randrange(6)
        if noisy and rng.random() < 0.05:
            letter = rng.choice(LETTERS)
        return f"{digit}{letter}"

    rows: dict[str, list] = {"prompt": [], "completion": []}
    for _ in range(size):
        position = rng.randrange(num_agents) if agent is None else agent
        own = [rng.randrange(6) for _ in range(position + 1)]
        blocks, previous = [str(own[position])], None
        for i in range(position):
            message = say(previous, own[i])
            blocks.append(f"{NAMES[i]}: {message}")
            previous = LETTERS.index(message[1])
        turns = [dict(turn) for turn in TASK]
        add_to_last_user_turn(turns, blocks)  # as the agent's view will show it
        rows["prompt"].append(turns)
        rows["completion"].append([{"role": "assistant", "content": say(previous, own[position])}])
    return Dataset.from_dict(rows)


def fit(model, tokenizer, demonstrations: Dataset, steps: int, learning_rate: float, seed: int):
    """Fine-tune `model` for `steps` steps, in which it sees each of the demonstrations once."""
    args = SFTConfig(
        tempfile.gettempdir(),  # nothing is saved there
        max_steps=steps,
        per_device_train_batch_size=len(demonstrations) // steps,
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=seed,
    )
    trainer = SFTTrainer(model, args, train_dataset=demonstrations, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def make_team(num_agents: int, seed: int) -> list[Agent]:
    """
    One noisy agent for each position, fine-tuned from one base model that speaks dialect A.

    Args:
        num_agents (`int`): Number n of agents, 2 to 8.
        seed (`int`): Seed of the weights and the demonstrations.
    """
    tokenizer = make_tokenizer()
    base = make_model(tokenizer, seed)
    fit(base, tokenizer, make_demonstrations(num_agents, 350 * 64, seed, noisy=False), 350, 3e-3, seed)
    agents = []
    for i in range(num_agents):
        model = make_model(tokenizer, seed)
        model.load_state_dict(base.state_dict())
        demonstrations = make_demonstrations(num_agents, 120 * 64, seed + 1000 * (i + 1), noisy=True, agent=i)
        fit(model, tokenizer, demonstrations, 120, 1.5e-3, seed)
        agents.append(Agent(NAMES[i], model, processing_class=tokenizer))
    return agents


def save_team(agents: list[Agent], output_dir: str):
    """Write each agent as a model directory of its name, for `Agent(name, path)`."""
    for agent in agents:
        parts: tuple[Any, Any] = agent.model, agent.processing_class
        for part in parts:
            part.save_pretrained(os.path.join(output_dir, agent.name))
