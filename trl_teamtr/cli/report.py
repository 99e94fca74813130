"""`trl-teamtr report`: one page about a run."""

import sys

from ..reports.run_report import make_report
from .parsers import make_command_parser


EXAMPLES = """\
examples:
  trl-teamtr report runs/quickstart
  trl-teamtr report runs/replaced --beside runs/replaced_unaligned

The page is `report.html` in the directory of the run. It needs no internet, and can be sent to others: it has the
configuration and some of the transcripts.
"""


def run(arguments: list[str]) -> int:
    """Run the command."""
    parser = make_command_parser(
        "trl-teamtr report",
        "Write one page about a run: rewards, the KL of each agent against its radius, costs, and transcripts.",
        EXAMPLES,
    )
    parser.add_argument("run", help="output directory of a training, which may still be under way")
    parser.add_argument("--beside", help="another run, to compare what came after the replacement of a member")
    options = parser.parse_args(arguments)
    try:
        print(make_report(options.run, beside=options.beside))
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
    return 0
