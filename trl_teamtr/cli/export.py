"""`trl-teamtr export`: save a team in another form."""

import argparse
import os
import sys

from transformers.utils import logging

from .parsers import make_command_parser
from .saved_teams import add_team_arguments, load


EXAMPLES = """\
examples:
  trl-teamtr export runs/team runs/merged --merge
  trl-teamtr export runs/team runs/whole --self-contained
  trl-teamtr export me/team runs/copy

A team whose router could not be saved needs --router again, here and when it is loaded.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = make_command_parser(
        "trl-teamtr export",
        "Save a team in another directory, for `Team.from_pretrained` and, agent by agent, for `from_pretrained` of "
        "transformers and PEFT.",
        EXAMPLES,
    )
    add_team_arguments(parser)
    parser.add_argument("output", help="directory to write, which must be new or empty")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--merge", action="store_true", help="merge adapters into the weights of their bases")
    form.add_argument("--self-contained", action="store_true", help="copy the bases of adapters into the directory")
    return parser


def run(arguments: list[str]) -> int:
    """Run the command."""
    options = make_parser().parse_args(arguments)
    logging.disable_progress_bar()
    if os.path.isdir(options.output) and os.listdir(options.output):
        sys.exit(f"error: {options.output!r} is not empty. Choose another directory.")
    team = load(options)
    team.save_pretrained(options.output, merge=options.merge, self_contained=options.self_contained)
    print(f"Wrote {', '.join(team.names)} to {options.output}.")
    return 0
