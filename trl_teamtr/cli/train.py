"""`train.py`: train a team with TeamTR."""

import argparse
import os
import shlex
import sys
from dataclasses import dataclass, field
from typing import Any

from trl import ModelConfig, TrlParser, get_peft_config, get_quantization_config

from ..planning import plan
from ..tasks.loading import default_reward, load_reward
from ..teamtr_config import TeamTRConfig
from ..teamtr_trainer import TeamTRTrainer
from .arguments import (
    ExamplesFormatter,
    TeamScriptArguments,
    load_data,
    load_equipment,
    make_agents,
    save_tasks,
    set_model_init_kwargs,
)


RESUME = "--resume_from_checkpoint"
INTERRUPTED = 130  # exit status of a run that Ctrl-C has stopped, as shells have it

EXAMPLES = """\
examples:
  trl-teamtr train --config my_team.yaml
  trl-teamtr train --model_name_or_path Qwen/Qwen3-0.6B --num_agents 3 --dataset_name reasoning_gym:chain_sum \\
      --output_dir runs/chain_sum --num_stages 40
  trl-teamtr train --config my_team.yaml --resume_from_checkpoint true
  trl-teamtr train --config my_team.yaml --plan true
  accelerate launch --config_file zero2.yaml -m trl_teamtr train --config my_team.yaml
"""


@dataclass
class TrainScriptArguments(TeamScriptArguments):
    """
    Arguments of the training script, beside those of the team and the tasks.

    Args:
        plan (`bool`): Print the memory and the time that the run would take, and exit. No weights are loaded.
        plan_time (`bool`): Whether the plan runs a few layers on the device at hand, for about ten seconds, from which the
            time of a stage follows.
        plan_launch (`str`, *optional*): Config file of accelerate to plan for. Defaults to the present launch.
        plan_prompt_length (`int`): Tokens of the longest prompt, with the system prompt.
        device_memory_gib (`float`, *optional*): Memory of a GPU to plan for. Defaults to that of the first one here.
    """

    plan: bool = field(default=False, metadata={"help": "Print what the run would take, and exit."})
    plan_time: bool = field(default=True, metadata={"help": "Whether the plan measures the device at hand."})
    plan_launch: str | None = field(default=None, metadata={"help": "Config file of accelerate to plan for."})
    plan_prompt_length: int = field(default=512, metadata={"help": "Tokens of the longest prompt."})
    device_memory_gib: float | None = field(default=None, metadata={"help": "Memory of a GPU to plan for."})


def find_team(script_args, training_args, model_args):
    """The team of the arguments: a list of agents, or a path or id."""
    if script_args.agents is not None:
        return make_agents(script_args.agents, training_args)
    if model_args.model_name_or_path is None:
        raise ValueError("Set `agents` in the YAML file, or `--model_name_or_path`.")
    return model_args.model_name_or_path


def make_trainer(script_args, training_args, model_args):
    """Make the trainer from the arguments."""
    if script_args.dataset_name is None:
        raise ValueError("Set `dataset_name`, in the YAML file or on the command line.")
    train_dataset, eval_dataset = load_data(script_args, training_args)
    names = script_args.reward_funcs
    if not names and script_args.environment_factory is None:
        names = [default_reward(script_args.dataset_name)]
    if names == [None]:
        raise ValueError(f"{script_args.dataset_name!r} comes without a reward: set `reward_funcs`.")
    team = find_team(script_args, training_args, model_args)
    set_model_init_kwargs(training_args, model_args)
    return TeamTRTrainer(
        model=team,
        reward_funcs=[load_reward(name) for name in names or []],
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
        **load_equipment(script_args),
    )


def plan_of(script_args, training_args, model_args, **given):
    """What the run would take. `given` takes the place of arguments of [`~trl_teamtr.plan`]."""
    if get_quantization_config(model_args) is not None:
        raise NotImplementedError(
            "`--plan` does not know quantized models. Leave out `load_in_4bit` and `load_in_8bit`."
        )
    team = find_team(script_args, training_args, model_args)
    set_model_init_kwargs(training_args, model_args)
    own = {
        "launch": script_args.plan_launch,
        "device_memory_gib": script_args.device_memory_gib,
        "prompt_length": script_args.plan_prompt_length,
    }
    return plan(team, training_args, get_peft_config(model_args), **own | given)


def print_plan(script_args, training_args, model_args):
    """Print what the run would take (`--plan`)."""
    found = plan_of(script_args, training_args, model_args, calibrate=script_args.plan_time)
    if training_args.process_index == 0:
        print(found)


def say_how_to_resume(trainer):
    """Print the command that resumes a run which was stopped and saved."""
    arguments = list(sys.argv[1:])
    if RESUME in arguments:  # from another checkpoint
        place = arguments.index(RESUME)
        del arguments[place : place + 2]
    arguments += [RESUME, "true"]
    name = os.path.basename(sys.argv[0])
    program = ["trl-teamtr"] if name == "trl-teamtr" else ["python", sys.argv[0]]
    program = ["python", "-m", "trl_teamtr"] if name == "__main__.py" else program
    trainer.accelerator.print(f"Preempted after update {trainer.preemption.stopped_at}, and saved. To resume:")
    if trainer.accelerator.num_processes > 1:  # its launcher is not known here
        trainer.accelerator.print(f"  the same command with {RESUME} true")
    else:
        trainer.accelerator.print(f"  {shlex.join([*program, *arguments])}")


def main(script_args, training_args, model_args):
    if script_args.plan:
        print_plan(script_args, training_args, model_args)
        return
    trainer = make_trainer(script_args, training_args, model_args)
    save_tasks(script_args, training_args)
    resume = training_args.resume_from_checkpoint  # text, where it comes from the command line
    try:
        trainer.train(resume_from_checkpoint=True if str(resume).lower() == "true" else resume)
    except KeyboardInterrupt as interrupt:
        trainer.accelerator.print(interrupt)
        if trainer.preemption.stopped_at is not None:
            say_how_to_resume(trainer)
            trainer.end()
        sys.exit(INTERRUPTED)
    if trainer.preemption.stopped_at is not None:
        say_how_to_resume(trainer)
        trainer.end()
        return
    trainer.accelerator.print("Training completed.")
    trainer.save_model(training_args.output_dir)
    trainer.accelerator.print(f"Team saved to {training_args.output_dir}.")
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)
    trainer.end()


def make_parser(subparsers: argparse._SubParsersAction | None = None, prog: str | None = None):
    dataclass_types: list[Any] = [TrainScriptArguments, TeamTRConfig, ModelConfig]
    if subparsers is not None:
        return subparsers.add_parser("teamtr", help="Train a team with TeamTR", dataclass_types=dataclass_types)
    return TrlParser(dataclass_types, prog=prog, epilog=EXAMPLES, formatter_class=ExamplesFormatter)


def run(arguments: list[str]):
    """Run the command `trl-teamtr train`."""
    main(*make_parser(prog="trl-teamtr train").parse_args_and_config(arguments))
