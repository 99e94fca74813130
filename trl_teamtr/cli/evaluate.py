"""`evaluate.py`: evaluate a saved team, and compare it with other uses of its models or of other ones."""

import dataclasses
import json
import os
import sys
import warnings
from dataclasses import dataclass, field
from typing import Any

from accelerate import PartialState
from trl import ModelConfig, TrlParser, get_quantization_config

from ..agents.resolving import speaking_defaults
from ..agents.team_file import has_environment
from ..evaluation import EvaluationConfig, evaluate_protocols, format_table, write_episodes
from ..tasks.loading import default_reward, hold_out, is_generated, load_function, load_reward, load_split
from ..teamtr_config import TeamTRConfig
from .arguments import (
    TASKS_FILE,
    ExamplesFormatter,
    TeamScriptArguments,
    eval_kwargs,
    load_data,
    load_equipment,
    make_agents,
    set_model_init_kwargs,
    task_seed,
)
from .evaluate_tasks import check_tasks, evaluate_tasks, read_paths


# What a result depends on beside the models and the tasks
SAMPLING = ("seed", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_completion_length")
TURNS = ("num_rounds", "max_turns", "router", "stop_string")
# An evaluation does not use them, and the values of a training may be impossible on its number of processes
UNUSED: dict[str, float] = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "num_generations": 2}
UNUSED |= {"num_generations_eval": 1, "monitor_fraction": 0.0}

EXAMPLES = """\
examples:
  trl-teamtr evaluate --team runs/quickstart --dataset_name link:3 --protocols team single
  trl-teamtr evaluate --team runs/team --dataset_name tasks.jsonl --reward_funcs accuracy_reward \\
      --protocols team debate role_play --output runs/evaluation.json
  trl-teamtr evaluate --model Qwen/Qwen3-0.6B --num_agents 3 --dataset_name reasoning_gym:chain_sum \\
      --protocols single majority debate --budget_samples 3
  trl-teamtr evaluate --team runs/team --tasks aime24 math500 zebralogic --num_samples 64 --k 1 8 \\
      --protocols team single debate --output runs/paper.json
"""


@dataclass
class EvaluationScriptArguments(TeamScriptArguments):
    """
    Arguments of the script, beside those of [`EvaluationConfig`], [`TeamTRConfig`] and [`~trl.ModelConfig`]: those of
    `train.py`, whose YAML files can be given as they are, and:

    Args:
        tasks (`list[str]`, *optional*):
            Published benchmarks (docs/tasks.md), in place of `dataset_name` and `eval_dataset_name`: one table, and one JSON file, from which the same
            command goes on if it was interrupted.
        task_paths (`dict`, *optional*):
            `dataset_path` by task; the others are read from the hub.
        team (`str`, *optional*):
            Directory of a saved team. Turn-taking, sampling and what the agents read default to those saved with it.
        output (`str`, *optional*):
            JSON file to write.
        episodes (`str`, *optional*):
            File to write every episode to, with its transcripts, as JSON lines.
        extract_answer (`str`, *optional*):
            Dotted path of a function that extracts the answer from a message to a row, by which votes are counted.
    """

    tasks: list[str] | None = field(default=None, metadata={"help": "Published benchmarks; see docs/tasks.md."})
    task_paths: str | None = field(default=None, metadata={"help": "Local file or clone by task (a mapping)."})
    team: str | None = field(default=None, metadata={"help": "Directory of a saved team."})
    output: str | None = field(default=None, metadata={"help": "JSON file to write."})
    episodes: str | None = field(default=None, metadata={"help": "JSON-lines file to write every episode to."})
    extract_answer: str | None = field(default=None, metadata={"help": "Function that extracts a message's answer."})


@dataclass
class EvaluationModelConfig(ModelConfig):
    """[`~trl.ModelConfig`] with `--model` for `--model_name_or_path`: the model of all protocols but `team`."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Model that plays all protocols but `team`.", "aliases": ["--model"]}
    )


def parse(arguments: list[str] | None = None, prog: str | None = None):
    """The four configs, from the command line, a YAML file, and what is saved with the team of how it speaks."""
    configs: list[Any] = [EvaluationScriptArguments, EvaluationConfig, TeamTRConfig, EvaluationModelConfig]
    parser = TrlParser(configs, prog=prog, epilog=EXAMPLES, formatter_class=ExamplesFormatter)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    arguments += [part for name, value in UNUSED.items() for part in (f"--{name}", str(value))]
    team = parser.parse_args_and_config(arguments)[0].team
    if team is not None:
        parser.set_defaults_with_config(**speaking_defaults(team))
    return parser.parse_args_and_config(arguments)


def trained_tasks(team: str | None) -> dict | None:
    """What `train.py` saved of the tasks of a team's training, beside the team or its checkpoints."""
    for folder in () if team is None else (team, os.path.dirname(os.path.abspath(team))):
        path = os.path.join(folder, TASKS_FILE)
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                return json.load(file)
    return None


def held_out_tasks(tasks: dict, size: int):
    """The first `size` rows of those that a training held out, which [`trained_tasks`] describes."""
    total, seed = tasks["dataset_size"] + tasks["eval_size"], tasks["seed"]
    if not tasks["held_out"]:
        warnings.warn(
            f"The training held out no tasks (`eval_strategy='no'`), so it may have used those of this evaluation. "
            f"For others pass `--dataset_seed {seed + total}`, or a larger one.",
            stacklevel=2,
        )
    rows = load_split(tasks["dataset_name"], "train", total, seed, **tasks["dataset_kwargs"])
    _, held_out = hold_out(rows, tasks["eval_size"], seed)
    return held_out.take(min(size, len(held_out)))


def load_tasks(script_args, training_args):
    """
    The rows to evaluate on. For a generated task those that the team's training held out, or that a training with the
    same arguments would hold out; for a hub dataset the test split; for a local file all.
    """
    name = script_args.eval_dataset_name or script_args.dataset_name
    kwargs = eval_kwargs(script_args)
    if name == script_args.dataset_name and is_generated(name):
        tasks = trained_tasks(script_args.team)
        if script_args.tasks is not None:
            kwargs = tasks["dataset_kwargs"] if tasks is not None and tasks["dataset_name"] == name else kwargs
        if tasks is not None and (tasks["dataset_name"], tasks["dataset_kwargs"]) == (name, kwargs):
            if script_args.dataset_seed in (None, tasks["seed"]):
                return held_out_tasks(tasks, script_args.eval_size)
        if script_args.tasks is None:
            training_args.do_eval = True  # else nothing is held out
            return load_data(script_args, training_args)[1]
    options = {"config": script_args.dataset_config, "streaming": script_args.dataset_streaming, **kwargs}
    seed = task_seed(script_args, training_args)
    return load_split(name, script_args.dataset_test_split, script_args.eval_size, seed, **options)


def choose_model(script_args, evaluation, training_args, model_args):
    """The model or agents that play all protocols but `team`; `None` for the team's own models."""
    if set(evaluation.protocols) == {"team"}:
        return None
    if model_args.model_name_or_path is not None:
        return model_args.model_name_or_path
    return make_agents(script_args.agents, training_args) if script_args.agents is not None else None


def acts_on_environment(script_args) -> bool:
    """Whether there is an environment for the team, which may have a reward: one of the arguments, or of the saved team."""
    if script_args.environment_factory is not None or script_args.team is None:
        return script_args.environment_factory is not None
    return has_environment(script_args.team)


def evaluate(script_args, evaluation, training_args, model_args):
    """The results by protocol, and the other entries of the JSON file."""
    if script_args.dataset_name is None:
        raise ValueError("Set `dataset_name`, in the YAML file or on the command line.")
    dataset_name = script_args.eval_dataset_name or script_args.dataset_name
    names = script_args.reward_funcs or []
    if not names and not acts_on_environment(script_args):
        names = [default_reward(dataset_name)]
    if names == [None]:
        raise ValueError(f"{dataset_name!r} comes without a reward: set `reward_funcs`.")
    reward_funcs = [load_reward(name) for name in names]
    read = None if script_args.extract_answer is None else load_function(script_args.extract_answer)
    dataset = load_tasks(script_args, training_args)
    if "team" in evaluation.protocols and script_args.team is None:  # before LINK's agents are warmed up for nothing
        raise ValueError("Protocol 'team' needs a team. Set `--team`, or leave 'team' out of `--protocols`.")
    set_model_init_kwargs(training_args, model_args)
    results = evaluate_protocols(
        script_args.team,
        reward_funcs,
        dataset,
        args=training_args,
        config=evaluation,
        model=choose_model(script_args, evaluation, training_args, model_args),
        extract_answer=read,
        quantization_config=get_quantization_config(model_args),
        **load_equipment(script_args),
    )
    return results, {"dataset": dataset_name, "rows": len(dataset), "rewards": names}


def describe(script_args, evaluation, training_args, model_args) -> dict[str, Any]:
    """The entries of the JSON file that do not depend on the rows."""
    baselines = model_args.model_name_or_path or script_args.agents or "the team's own models"
    return {
        "team": script_args.team,
        "baselines": None if set(evaluation.protocols) == {"team"} else baselines,
        "dataset_kwargs": script_args.dataset_kwargs,
        "dataset_seed": script_args.dataset_seed,
        "processes": training_args.world_size,
        **{name: vars(training_args)[name] for name in (*SAMPLING, *TURNS)},
        **dataclasses.asdict(evaluation),
    }


def main_of_tasks(script_args, evaluation, training_args, model_args):
    """[`main`] for several tasks."""
    if script_args.episodes is not None:
        raise ValueError("`episodes` is a file of one dataset: leave it out, or evaluate with `dataset_name`.")
    script_args.dataset_kwargs = None  # a YAML file has those of its own dataset
    check_tasks(script_args.tasks, read_paths(script_args.task_paths), evaluation.protocols, script_args.team)
    evaluate_tasks(
        script_args,
        describe(script_args, evaluation, training_args, model_args),
        lambda own: evaluate(own, evaluation, training_args, model_args),
        training_args.process_index == 0,
    )
    PartialState().destroy_process_group()


def main(script_args, evaluation, training_args, model_args):
    if script_args.tasks is not None:
        main_of_tasks(script_args, evaluation, training_args, model_args)
        return
    for path in filter(None, (script_args.output, script_args.episodes)):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    results, about = evaluate(script_args, evaluation, training_args, model_args)
    about |= describe(script_args, evaluation, training_args, model_args)
    if training_args.process_index == 0:
        print(f"{about['team'] or about['baselines']} on {about['rows']} tasks of {about['dataset']}")
        if about["baselines"] is not None:
            print(f"All protocols but 'team' are played by: {about['baselines']}")
        print(format_table(list(results.values())))
        if script_args.episodes is not None:
            write_episodes(list(results.values()), script_args.episodes)
        if script_args.output is not None:
            figures = {protocol: result.as_dict() for protocol, result in results.items()}
            with open(script_args.output, "w", encoding="utf-8") as file:
                json.dump(about | {"protocols": figures}, file, indent=2)
                file.write("\n")
    PartialState().destroy_process_group()


def run(arguments: list[str]):
    """Run the command `trl-teamtr evaluate`."""
    main(*parse(arguments, "trl-teamtr evaluate"))
