"""`trl-teamtr`: one command line for all that one does with a team."""

import argparse
import importlib
import sys

from .parsers import make_command_parser


# The sub-commands: the module that has `run(arguments)`, and what it does
COMMANDS = {
    "quickstart": ("quickstart", "train three tiny agents that must agree on a code, and show the result"),
    "train": ("train", "train a team"),
    "evaluate": ("evaluate", "evaluate a saved team, beside single models, votes and debates"),
    "chat": ("chat", "talk to a saved team"),
    "serve": ("serve", "serve a saved team through OpenAI's API, with a page"),
    "replace": ("replace", "let another model take the place of a member, aligned to it"),
    "report": ("report", "write one page about a run: rewards, KLs, costs, transcripts"),
    "export": ("export", "save a team with merged adapters, or with the bases of its adapters"),
    "env": ("env", "print the versions that belong into a report of a fault"),
}

EXAMPLES = """\
examples:
  trl-teamtr quickstart
  trl-teamtr train --config my_team.yaml
  trl-teamtr chat runs/quickstart
  trl-teamtr chat runs/quickstart --once "How many primes are there below 50?"
  trl-teamtr evaluate --team runs/quickstart --dataset_name link:3 --protocols team single
  trl-teamtr serve runs/quickstart --port 8000
  trl-teamtr replace runs/quickstart --member b --model Qwen/Qwen3-0.6B --dataset_name link:3 --align 500 --output runs/new
  trl-teamtr report runs/quickstart
  trl-teamtr export runs/quickstart runs/whole --self-contained

`trl-teamtr COMMAND --help` lists the arguments of a command. On several GPUs or machines:
  accelerate launch --config_file zero2.yaml -m trl_teamtr train --config my_team.yaml
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line; the arguments of a sub-command are left to it."""
    parser = make_command_parser("trl-teamtr", "Fine-tune teams of LLM agents, and use them.", EXAMPLES)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, does) in COMMANDS.items():
        commands.add_parser(name, help=does, add_help=False)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command line. Returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # What follows a command is for its own parser, `--help` included
    chosen = make_parser().parse_args(arguments[:1] or ["--help"])
    module = importlib.import_module(f".{COMMANDS[chosen.command][0]}", __package__)
    status: int | None = module.run(arguments[1:])
    return status or 0
