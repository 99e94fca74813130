"""The parsers of the commands."""

import argparse


def make_command_parser(prog: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser without arguments, whose help ends with `examples` as they are written."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
