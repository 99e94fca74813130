"""`trl-teamtr replace`: let another model take the place of a member of a saved team, or of a run between two stages."""

import json
import os
import sys
from dataclasses import dataclass, field
from typing import Any

from accelerate import Accelerator
from datasets import Dataset
from peft import LoraConfig
from transformers.utils import logging
from trl import ScriptArguments, TrlParser

from ..agents.agent import Agent
from ..replacement import AlignmentConfig, ReplacementReport, replace_member
from ..reports.run_report import REPLACEMENTS_FILE
from ..runs.member_swap import is_checkpoint, swap_in_checkpoint, updates_of
from ..tasks.loading import default_reward, is_generated, load_reward, load_split
from ..team import Team
from .arguments import ExamplesFormatter, task_kwargs
from .evaluate import trained_tasks


EXAMPLES = """\
examples:
  trl-teamtr replace runs/quickstart --member b --model Qwen/Qwen3-0.6B --dataset_name link:3 --align 500 --output runs/new
  trl-teamtr replace runs/quickstart/checkpoint-60 --member b --model runs/b --dataset_name link:3 --output runs/new
  trl-teamtr replace --config examples/replace.yaml

Of a checkpoint between two stages, `runs/new/checkpoint-60` is written, from which the run goes on:
  trl-teamtr train --config my_team.yaml --model_name_or_path runs/new/checkpoint-60 --output_dir runs/new \\
      --resume_from_checkpoint runs/new/checkpoint-60
"""


@dataclass
class ReplaceScriptArguments(ScriptArguments):
    """
    Arguments of the command, beside those of [`AlignmentConfig`].

    Args:
        team (`str`, *optional*): Directory of a saved team, or of a checkpoint; the first argument.
        member (`str`, *optional*): Name of the member that leaves.
        model (`str`, *optional*): Model that takes its place: an id, or a directory with a model or an adapter.
        agent (`dict`, *optional*): Other fields of the new member's `Agent`, such as `system_prompt`.
        peft (`dict`, *optional*): The fields of a [`~peft.LoraConfig`], to align and train an adapter.
        output (`str`, *optional*): Directory to write, which must be new or empty.
        reward_funcs (`list[str]`, *optional*): Names of TRL's rewards, or dotted paths. Default to the task's own.
        dataset_path (`str`, *optional*): Local file or clone of a published benchmark (docs/tasks.md).
        dataset_kwargs (`dict`, *optional*): Settings of a task.
        dataset_seed (`int`, *optional*): Seed of a generated task; by default one that the team's training has not used.
        eval_size (`int`): Number of prompts on which the swap shock is measured, beside the probes.
    """

    team: str | None = field(default=None, metadata={"help": "The saved team, or a checkpoint."})
    member: str | None = field(default=None, metadata={"help": "Name of the member that leaves."})
    model: str | None = field(default=None, metadata={"help": "Model that takes its place."})
    agent: str | None = field(default=None, metadata={"help": "Other fields of the new `Agent` (a mapping)."})
    peft: str | None = field(default=None, metadata={"help": "The fields of a `LoraConfig` (a mapping)."})
    output: str | None = field(default=None, metadata={"help": "Directory to write."})
    reward_funcs: list[str] | None = field(default=None, metadata={"help": "Reward functions."})
    dataset_path: str | None = field(default=None, metadata={"help": "Local file or clone of a published benchmark."})
    dataset_kwargs: str | None = field(default=None, metadata={"help": "Settings of a task (a mapping)."})
    dataset_seed: int | None = field(default=None, metadata={"help": "Seed of a generated task."})
    eval_size: int = field(default=200, metadata={"help": "Prompts on which the shock is measured."})


def spell_out(arguments: list[str]) -> list[str]:
    """The arguments with `--team` before the first one, and `--align N` as `--num_probes N`; 0 for no alignment."""
    found = list(arguments)
    if found and not found[0].startswith("-"):
        found.insert(0, "--team")
    if "--align" in found[:-1] and found[found.index("--align") + 1].isdigit():
        place = found.index("--align")
        count = found[place + 1]
        found[place : place + 2] = ["--align", "false"] if count == "0" else ["--num_probes", count, "--align", "true"]
    return found


def run(arguments: list[str]) -> int:
    """Run the command."""
    types: list[Any] = [ReplaceScriptArguments, AlignmentConfig]
    parser = TrlParser(types, prog="trl-teamtr replace", epilog=EXAMPLES, formatter_class=ExamplesFormatter)
    script_args, alignment = parser.parse_args_and_config(spell_out(arguments))
    try:
        report = replace(script_args, alignment)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(report)
    return 0


def replace(script_args: ReplaceScriptArguments, alignment: AlignmentConfig) -> ReplacementReport:
    """Replace the member, and write the new team or checkpoint, and the report beside it."""
    wanted = ("team", "member", "model", "output", "dataset_name")
    missing = [name for name in wanted if vars(script_args)[name] is None]
    if missing:
        raise ValueError(f"Set {', '.join(missing)}, in the YAML file or on the command line.")
    source, output = str(script_args.team), str(script_args.output)
    if os.path.isdir(output) and os.listdir(output):
        raise ValueError(f"{output!r} is not empty. Choose another directory.")
    logging.disable_progress_bar()
    team = Team.from_pretrained(source)
    step = updates_of(source) if is_checkpoint(source) else None
    name = str(script_args.member)
    evaluated, probes = load_probes(script_args, alignment)
    names: list[str | None] = [*(script_args.reward_funcs or [])] or [default_reward(str(script_args.dataset_name))]
    rewards = [load_reward(each) for each in names if each is not None]
    agent = make_agent(script_args)
    report = replace_member(team, name, agent, probes, alignment, rewards or None, evaluated, step)
    (new,) = [speaker.agent for speaker in team.speakers if speaker.name == name]
    if step is None:
        team.save_pretrained(output)
    else:
        final = os.path.join(output, f"checkpoint-{step}")
        os.makedirs(output, exist_ok=True)
        swap_in_checkpoint(source, final, new, Accelerator(), event=new.history[-1])
    with open(os.path.join(output, REPLACEMENTS_FILE), "a", encoding="utf-8") as file:
        file.write(f"{report.to_json()}\n")
    return report


def make_agent(script_args: ReplaceScriptArguments) -> Agent:
    """The new member."""
    own, peft = _mapping(script_args.agent), _mapping(script_args.peft)
    lora = LoraConfig(task_type="CAUSAL_LM", **peft) if peft else None
    return Agent(str(script_args.member), str(script_args.model), peft_config=lora, **own)


def load_probes(script_args: ReplaceScriptArguments, alignment: AlignmentConfig) -> tuple[Dataset, Dataset]:
    """Rows for the shock, and probes: of a generated task new ones, else those of the test split, or of the local file."""
    name, seed, number = str(script_args.dataset_name), script_args.dataset_seed, script_args.eval_size
    if seed is None:
        tasks = trained_tasks(script_args.team)
        seed = alignment.seed if tasks is None else tasks["seed"] + tasks["dataset_size"] + tasks["eval_size"]
    kwargs = {"config": script_args.dataset_config} | task_kwargs(script_args)
    rows = load_split(name, script_args.dataset_test_split, number + alignment.num_probes, seed, **kwargs)
    if not is_generated(name) and len(rows) <= number:
        raise ValueError(
            f"{name!r} has {len(rows)} rows, of which `eval_size={number}` are for the shock, so that no probe is left. Lower it."
        )
    return rows.select(range(number)), rows.select(range(number, min(len(rows), number + alignment.num_probes)))


def _mapping(given: Any) -> dict[str, Any]:
    """A mapping from YAML, or JSON from the command line."""
    return json.loads(given) if isinstance(given, str) else dict(given or {})
