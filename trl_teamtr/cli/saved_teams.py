"""Arguments with which the commands find a saved team."""

import argparse
import sys

from ..tasks.loading import load_function
from ..team import Team


def add_team_arguments(parser: argparse.ArgumentParser):
    """Add the arguments of a saved team."""
    parser.add_argument("team", help="directory of a saved team, or the id of its repository on the hub")
    parser.add_argument("--revision", help="branch, tag or commit of the repository")
    parser.add_argument("--router", help="dotted path of a router, for a team whose own could not be saved")
    parser.add_argument("--stop-condition", help="dotted path of a stop condition, likewise")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the models")


def load(options: argparse.Namespace) -> Team:
    """The team of the arguments; ends the process with a message if there is none, or it cannot be loaded."""
    try:
        return Team.from_pretrained(
            options.team,
            router=options.router and load_function(options.router, "router"),
            stop_condition=options.stop_condition and load_function(options.stop_condition, "stop condition"),
            trust_remote_code=options.trust_remote_code,
            revision=options.revision,
        )
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")


def read_pairs(pairs: list[str]) -> dict[str, str]:
    """Arguments `agent=text` as a mapping."""
    for pair in pairs:
        if "=" not in pair:
            sys.exit(f"error: --private is {pair!r}, but must be AGENT=TEXT.")
    return dict(pair.split("=", 1) for pair in pairs)
