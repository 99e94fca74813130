"""`trl-teamtr env`: what belongs into a report of a fault."""

import argparse
import importlib.metadata

from trl.scripts.env import print_env


def run(arguments: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="trl-teamtr env",
        description="Print the versions and devices that belong into a report of a fault: those of `trl env`, and trl-teamtr's.",
    )
    parser.parse_args(arguments)
    print_env()
    print(f"- trl-teamtr version: {importlib.metadata.version('trl-teamtr')}")
    return 0
