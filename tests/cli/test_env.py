import trl_teamtr
from trl_teamtr.cli.main import main


def test_versions_are_printed(capsys):
    assert main(["env"]) == 0
    shown = capsys.readouterr().out
    assert f"- trl-teamtr version: {trl_teamtr.__version__}" in shown and "- TRL version: " in shown
