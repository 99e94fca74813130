"""`trl-teamtr`: every sub-command is there, says how it is used, and loads no more than it needs."""

import re
import subprocess
import sys

import pytest

from trl_teamtr.cli.main import COMMANDS, main


def test_help_lists_the_commands_and_examples(capsys):
    for arguments in ([], ["--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert all(re.search(rf"\n    {name}\s", shown) for name in COMMANDS) and "examples:" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and f"usage: trl-teamtr {command}" in shown
    assert command == "env" or f"examples:\n  trl-teamtr {command} " in shown


@pytest.mark.parametrize("arguments", [["replac", "runs/a"], ["trian"], ["--team", "a"]])
def test_what_is_no_command_is_told_which_there_are(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "choose from" in capsys.readouterr().err or arguments == ["--team", "a"]


def test_the_module_is_the_command_and_training_needs_nothing_of_serving():
    code = (
        "import contextlib, runpy, sys\n"
        "sys.argv = ['trl_teamtr', '--help']\n"
        "with contextlib.suppress(SystemExit):\n"
        "    runpy.run_module('trl_teamtr', run_name='__main__')\n"
        "import trl_teamtr.cli.train\n"
        "print({'fastapi', 'trl_teamtr.serving'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "usage: trl-teamtr" in done.stdout and done.stdout.strip().endswith("set()"), done.stdout + done.stderr
