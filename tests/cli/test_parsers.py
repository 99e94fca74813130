"""What all commands have in common."""

import pytest

from trl_teamtr.cli.parsers import make_command_parser


def test_help_ends_with_the_examples_and_names_are_written_out(capsys):
    parser = make_command_parser("trl-teamtr sing", "Let a team sing.", "examples:\n  trl-teamtr sing   # aloud\n")
    parser.add_argument("--loudness")
    assert "Let a team sing." in parser.format_help() and parser.format_help().endswith(
        "  trl-teamtr sing   # aloud\n"
    )
    with pytest.raises(SystemExit):
        parser.parse_args(["--loud", "1"])
    assert "usage: trl-teamtr sing" in capsys.readouterr().err
