"""`trl-teamtr serve`: a saved team behind OpenAI's API, and a page on which one talks to it."""

import argparse
import importlib.util
import os
import sys

from transformers.utils import logging

from .parsers import make_command_parser
from .saved_teams import add_team_arguments, load


API_KEY = "TEAMTR_API_KEY"

EXAMPLES = f"""\
examples:
  trl-teamtr serve runs/quickstart --port 8000
  {API_KEY}=... trl-teamtr serve me/team --host 0.0.0.0

  curl http://127.0.0.1:8000/v1/chat/completions -H "Content-Type: application/json" \\
      -d '{{"model": "team", "messages": [{{"role": "user", "content": "1 + 1 ="}}], "seed": 0}}'

The answer is the team's last message. All messages are in `teamtr.transcript` beside it. `team/NAME` is one member alone.
The page is at http://127.0.0.1:8000/.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = make_command_parser(
        "trl-teamtr serve",
        "Serve a saved team: /v1/chat/completions and /v1/models as OpenAI has them, /health, and a page.",
        EXAMPLES,
    )
    add_team_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="port (default: 8000)")
    parser.add_argument("--name", default="team", help="name of the model (default: team)")
    parser.add_argument(
        "--api-key",
        help=f"key that requests must have; better in the environment variable {API_KEY}, which others do not see",
    )
    parser.add_argument("--max-talks", type=int, default=16, help="conversations held at a time (default: 16)")
    parser.add_argument("--max-waiting", type=int, default=64, help="conversations that may wait (default: 64)")
    parser.add_argument("--max-choices", type=int, default=8, help="largest n of a request (default: 8)")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for an answer (default: 600)")
    parser.add_argument("--max-body", type=int, default=1 << 20, help="largest body in bytes (default: 1 MiB)")
    return parser


def run(arguments: list[str]) -> int:
    """Run the command."""
    options = make_parser().parse_args(arguments)
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"error: {' and '.join(missing)} must be installed: pip install 'trl-teamtr[serve]'")
    import uvicorn

    from ..serving.app import make_app
    from ..serving.limits import ServerSettings

    key = options.api_key if options.api_key is not None else os.environ.get(API_KEY)
    limits = ("name", "max_talks", "max_waiting", "max_choices", "timeout", "max_body")
    try:
        settings = ServerSettings(api_key=key, **{name: vars(options)[name] for name in limits})
    except ValueError as error:
        sys.exit(f"error: {error}")
    if key is None and options.host not in ("127.0.0.1", "localhost"):
        print(f"Everyone who reaches {options.host}:{options.port} can use the team. Set {API_KEY} to ask for a key.")
    logging.disable_progress_bar()
    team = load(options)
    print(f"{', '.join(team.names)} at http://{options.host}:{options.port}/", flush=True)
    app = make_app(team, settings, options.host)
    # Ctrl-C: answers that are not there a few seconds later are lost
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", timeout_graceful_shutdown=3)
    return 0
