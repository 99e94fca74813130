"""How large a run of a benchmark is: `"full"`, `"quick"` (minutes) or `"smoke"` (seconds, which says only that it runs)."""

import argparse


def add_size(parser: argparse.ArgumentParser):
    """Options `--quick` and `--smoke`, which set `size`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quick", dest="size", action="store_const", const="quick", help="smaller: minutes")
    group.add_argument("--smoke", dest="size", action="store_const", const="smoke", help="seconds; measures nothing")
    parser.set_defaults(size="full")
