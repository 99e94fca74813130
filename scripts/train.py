"""
Train a team with TeamTR.

What is different from TRL's `grpo.py`:
  1. the model is a team, listed under `agents` in the YAML file;
  2. `--dataset_name` may also be a local file, or `reasoning_gym:<task>` or `link:<n>`, which bring their own reward;
  3. `max_steps`, `logging_steps`, `save_steps` and `eval_steps` count updates of single agents.

One process:
    accelerate launch --config_file accelerate_configs/cpu.yaml scripts/train.py --config examples/quickstart.yaml
A model of the hub as a team of three, from the command line alone:
    accelerate launch scripts/train.py --model_name_or_path Qwen/Qwen3-0.6B --num_agents 3 \
        --dataset_name reasoning_gym:chain_sum --output_dir runs/chain_sum --num_stages 40
"""

import argparse
import json
import os
import sys
from dataclasses import dataclass, field

from trl import ModelConfig, ScriptArguments


TASKS_FILE = "tasks.json"


@dataclass
class TeamScriptArguments(ScriptArguments):
    """
    Arguments of the script, beside those of [`TeamTRConfig`] and [`~trl.ModelConfig`].

    Args:
        agents (`list[dict]`, *optional*):
            The team: for each member the fields of `Agent`, with `peft` (the fields of [`~peft.LoraConfig`]) in place
            of `peft_config`. Or `link:<n>` for a team that is warmed up for LINK on the spot. A JSON string on the
            command line. Without it, `--model_name_or_path` and `--num_agents` make the team.
        reward_funcs (`list[str]`, *optional*):
            Names of TRL's rewards, or dotted paths. Defaults to the task's own.
        dataset_kwargs (`dict`, *optional*):
            Settings of a reasoning-gym task.
        dataset_size, eval_size (`int`):
            Rows of a generated task for training and for evaluation. The two share no task.
        dataset_seed (`int`, *optional*):
            Seed of a generated task. Defaults to `--seed`.
        eval_dataset_name (`str`, *optional*):
            Dataset for evaluation, where it is another one.
    """

    agents: str | None = field(default=None, metadata={"help": "The team: a list of mappings, or `link:<n>`."})
    reward_funcs: list[str] | None = field(default=None, metadata={"help": "Reward functions."})
    dataset_kwargs: str | None = field(
        default=None, metadata={"help": "Settings of a reasoning-gym task (a mapping)."}
    )
    dataset_size: int = field(default=10_000, metadata={"help": "Rows of a generated task, for training."})
    eval_size: int = field(default=200, metadata={"help": "Rows of a generated task, for evaluation."})
    dataset_seed: int | None = field(default=None, metadata={"help": "Seed of a generated task; else `--seed`."})
    eval_dataset_name: str | None = field(default=None, metadata={"help": "Dataset for evaluation, if another one."})


def make_agents(specification, training_args):
    """The value of `agents`, from YAML or JSON, as a list of `Agent`."""
    from peft import LoraConfig

    from trl_teamtr import Agent

    if isinstance(specification, str):
        kind, _, count = specification.partition(":")
        if kind == "link":
            sys.path.insert(0, os.path.dirname(__file__))
            from warm_start_link import make_team

            return make_team(int(count), training_args.seed)
        specification = json.loads(specification)
    agents = []
    for entry in specification:
        entry = dict(entry)
        peft = entry.pop("peft", None)
        agents.append(Agent(**entry, peft_config=LoraConfig(task_type="CAUSAL_LM", **peft) if peft else None))
    return agents


def task_kwargs(script_args) -> dict:
    """`dataset_kwargs`, a mapping from YAML or text from the command line."""
    kwargs = script_args.dataset_kwargs or {}
    return json.loads(kwargs) if isinstance(kwargs, str) else kwargs


def task_seed(script_args, training_args) -> int:
    """The seed of a generated task."""
    return training_args.seed if script_args.dataset_seed is None else script_args.dataset_seed


def load_data(script_args, training_args):
    """The training and, if it is asked for, the evaluation dataset."""
    from trl_teamtr.tasks.loading import default_reward, hold_out, load_split

    options = {"config": script_args.dataset_config, "streaming": script_args.dataset_streaming}
    options |= task_kwargs(script_args)
    name = script_args.dataset_name
    seed = task_seed(script_args, training_args)
    eval_name, eval_size = script_args.eval_dataset_name or name, script_args.eval_size
    train = load_split(name, script_args.dataset_train_split, script_args.dataset_size + eval_size, seed, **options)
    if training_args.eval_strategy == "no" and not training_args.do_eval:
        return train, None
    if eval_name == name and default_reward(name):
        return hold_out(train, eval_size, seed)
    return train, load_split(eval_name, script_args.dataset_test_split, eval_size, seed, **options)


def save_tasks(script_args, training_args):
    """Write down which generated tasks the training has and holds out, for `evaluate.py`."""
    from trl_teamtr.tasks.loading import default_reward

    if training_args.process_index != 0 or default_reward(script_args.dataset_name) is None:
        return
    tasks = {
        "dataset_name": script_args.dataset_name,
        "dataset_kwargs": task_kwargs(script_args),
        "dataset_size": script_args.dataset_size,
        "eval_size": script_args.eval_size,
        "seed": task_seed(script_args, training_args),
        "held_out": training_args.eval_strategy != "no" or training_args.do_eval,
    }
    os.makedirs(training_args.output_dir, exist_ok=True)
    with open(os.path.join(training_args.output_dir, TASKS_FILE), "w", encoding="utf-8") as file:
        json.dump(tasks, file, indent=2)


def set_model_init_kwargs(training_args, model_args):
    """How models are loaded: as `model_args` says, where `model_init_kwargs` does not say otherwise."""
    init = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
    }
    training_args.model_init_kwargs = {**init, **(training_args.model_init_kwargs or {})}


def make_trainer(script_args, training_args, model_args):
    """The trainer that the arguments describe."""
    from trl import get_peft_config, get_quantization_config

    from trl_teamtr import TeamTRTrainer
    from trl_teamtr.tasks.loading import default_reward, load_reward

    if script_args.dataset_name is None:
        raise ValueError("Set `dataset_name`, in the YAML file or on the command line.")
    train_dataset, eval_dataset = load_data(script_args, training_args)
    names = script_args.reward_funcs or [default_reward(script_args.dataset_name)]
    if names == [None]:
        raise ValueError(f"{script_args.dataset_name!r} comes without a reward: set `reward_funcs`.")
    if script_args.agents is not None:
        team = make_agents(script_args.agents, training_args)
    elif model_args.model_name_or_path is not None:
        team = model_args.model_name_or_path
    else:
        raise ValueError("Set `agents` in the YAML file, or `--model_name_or_path`.")
    set_model_init_kwargs(training_args, model_args)
    return TeamTRTrainer(
        model=team,
        reward_funcs=[load_reward(name) for name in names],
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
    )


def main(script_args, training_args, model_args):
    from transformers.trainer_callback import ProgressCallback

    from trl_teamtr.callbacks import TeamProgressCallback

    trainer = make_trainer(script_args, training_args, model_args)
    save_tasks(script_args, training_args)
    if not training_args.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(TeamProgressCallback)
    resume = training_args.resume_from_checkpoint  # text, where it comes from the command line
    trainer.train(resume_from_checkpoint=True if str(resume).lower() == "true" else resume)
    if trainer.preemption.stopped_at is not None:
        trainer.accelerator.print(
            f"Preempted after update {trainer.preemption.stopped_at}, and saved. Start the same command again with "
            "`--resume_from_checkpoint true`."
        )
        trainer.end()
        return
    trainer.accelerator.print("Training completed.")
    trainer.save_model(training_args.output_dir)
    trainer.accelerator.print(f"Team saved to {training_args.output_dir}.")
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)
    trainer.end()


def make_parser(subparsers: argparse._SubParsersAction | None = None, prog: str | None = None):
    from trl import TrlParser

    from trl_teamtr import TeamTRConfig

    dataclass_types = (TeamScriptArguments, TeamTRConfig, ModelConfig)
    if subparsers is not None:
        return subparsers.add_parser("teamtr", help="Train a team with TeamTR", dataclass_types=dataclass_types)
    return TrlParser(dataclass_types, prog=prog)


if __name__ == "__main__":
    script_arguments, training_arguments, model_arguments = make_parser().parse_args_and_config()
    main(script_arguments, training_arguments, model_arguments)
