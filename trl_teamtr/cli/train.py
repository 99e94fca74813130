"""`train.py`: train a team with TeamTR."""

import argparse
from typing import Any

from transformers.trainer_callback import ProgressCallback
from trl import ModelConfig, TrlParser, get_peft_config, get_quantization_config

from ..reports.progress import TeamProgressCallback
from ..tasks.loading import default_reward, load_reward
from ..teamtr_config import TeamTRConfig
from ..teamtr_trainer import TeamTRTrainer
from .arguments import TeamScriptArguments, load_data, make_agents, save_tasks, set_model_init_kwargs


def make_trainer(script_args, training_args, model_args):
    """Make the trainer from the arguments."""
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
    dataclass_types: list[Any] = [TeamScriptArguments, TeamTRConfig, ModelConfig]
    if subparsers is not None:
        return subparsers.add_parser("teamtr", help="Train a team with TeamTR", dataclass_types=dataclass_types)
    return TrlParser(dataclass_types, prog=prog)
