"""`trl-teamtr chat`: talk to a saved team in the terminal."""

import argparse
import sys
from typing import Any

from transformers.utils import logging

from ..policy.remote import RemoteMemberError
from ..team import Team
from .parsers import make_command_parser
from .saved_teams import add_team_arguments, load, read_pairs


EXAMPLES = """\
examples:
  trl-teamtr chat runs/quickstart
  trl-teamtr chat runs/quickstart --once "How many primes are there below 50?"
  trl-teamtr chat runs/quickstart --once "?" --private a=3 --private b=5 --private c=0 --transcript
  echo "How many primes are there below 50?" | trl-teamtr chat runs/quickstart --once -

In a talk: /new begins another one, /exit or Ctrl-D ends.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = make_command_parser(
        "trl-teamtr chat", "Talk to a saved team: every agent's message as it is generated.", EXAMPLES
    )
    add_team_arguments(parser)
    parser.add_argument("--once", metavar="QUESTION", help="print the answer to this question and exit; - reads stdin")
    parser.add_argument("--transcript", action="store_true", help="with --once: print all messages")
    parser.add_argument("--private", metavar="AGENT=TEXT", action="append", default=[], help="what only AGENT reads")
    parser.add_argument("--seed", type=int, help="the same one gives the same answers")
    parser.add_argument("--greedy", action="store_true", help="the most probable token at each place")
    return parser


def run(arguments: list[str]) -> int:
    """Run the command."""
    options = make_parser().parse_args(arguments)
    logging.disable_progress_bar()
    private, team = read_pairs(options.private), load(options)
    own: dict[str, Any] = {"agent_prompts": private or None, "seed": options.seed, "greedy": options.greedy}
    if options.once is None:
        return talk(team, own)
    try:
        answer = team.chat(sys.stdin.read() if options.once == "-" else options.once, **own)
    except (ValueError, RemoteMemberError) as error:
        sys.exit(f"error: {error}")
    print(answer if options.transcript else answer.final_text)
    return 0


def talk(team: Team, own: dict[str, Any]) -> int:
    """Questions from the terminal, until it ends."""
    print(f"{', '.join(team.names)} are here. /new begins another talk, /exit ends.", flush=True)
    turns: list[dict[str, str]] = []
    while True:
        try:
            question = input("\n> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return 0
        if question == "/exit":
            return 0
        if question == "/new":
            turns = []
        elif question:
            turns = _answer(team, [*turns, {"role": "user", "content": question}], own)


def _answer(team: Team, turns: list[dict[str, str]], own: dict[str, Any]) -> list[dict[str, str]]:
    """Print the messages to the last of `turns`. Returns them with the answer; without the question, if there is none."""
    prompt = turns if team.answers_conversations else turns[-1]["content"]
    answer = None
    try:
        for message in team.stream(prompt, **own):
            print(f"{message.agent}: ", end="", flush=True)
            for piece in message:
                print(piece, end="", flush=True)
            print()
            answer = message.text
    except (ValueError, RemoteMemberError) as error:  # too long, for example: the talk can go on otherwise
        print(f"error: {error}")
    except KeyboardInterrupt:
        print("\n(stopped)")
        return turns[:-1]
    return turns[:-1] if answer is None else [*turns, {"role": "assistant", "content": answer}]
