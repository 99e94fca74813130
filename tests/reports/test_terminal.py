"""The line in the terminal: what it shows at any width, and in a pipe."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from tiny import make_team, make_trainer

from trl_teamtr.reports.terminal import TerminalCallback


def member(name):
    return SimpleNamespace(name=name)


def show(width, terminal=True, colour=True, encoding="utf-8"):
    """What two stages of three agents write, with figures that are made up."""

    class Output(io.StringIO):
        pass

    output = Output()
    Output.encoding = encoding
    console = Console(
        file=output,
        width=width,
        force_terminal=terminal,
        color_system="standard" if colour else None,
        legacy_windows=False,
        highlight=False,
    )
    agents = [member(name) for name in ("planner", "solver", "checker")]
    trainer = SimpleNamespace(trained_members=agents, active=SimpleNamespace(agent=agents[0]))
    callback = TerminalCallback(trainer, console)
    state = SimpleNamespace(global_step=0, max_steps=6, is_world_process_zero=True)
    callback.on_train_begin(None, state, None)
    callback._begun = (0.0, 0)
    callback._time_left = lambda state: "" if state.global_step in (0, 6) else f"{7 - state.global_step} min left"
    for step, (reward, kl) in enumerate(
        [(0.2, 0.002), (0.3, 0.009), (0.25, 0.0), (0.4, 0.005), (0.5, 0.01), (0.6, 0.001)]
    ):
        trainer.active.agent = agents[step % 3]
        callback.on_step_begin(None, state, None)
        state.global_step = step + 1
        own = f"agent/{agents[step % 3].name}"
        logs = {
            "loss": 0.1,
            "reward": reward,
            f"{own}/kl": kl,
            f"{own}/radius": 0.01,
            f"{own}/rejected": float(kl == 0),
        }
        callback.on_log(None, state, None, logs)
        if step == 2:
            callback.on_log(None, state, None, {"eval_reward": 0.35})
    callback.on_train_end(None, state, None)
    return output.getvalue()


def test_a_terminal_has_one_line_that_is_written_over():
    shown = show(200, colour=False)
    *updates, last, rest = shown.replace("\n", "\r").split("\r")
    assert len(updates) == 6 and rest == "" and shown.count("\n") == 1
    assert updates[0].strip() == "stage 1/2 · updating planner (1/3)"
    assert updates[3].strip() == (
        "stage 2/2 · updating planner (1/3) · reward 0.250 ▼ · KL/δ planner ▂ solver ▇ checker ✗ · held-out 0.350 · 4 min left"
    )
    assert last.strip() == (
        "stage 2/2 · updated checker (3/3) · reward 0.600 ▲ · KL/δ planner ▄ solver █ checker ▁ · held-out 0.350"
    )
    assert {len(line) for line in [*updates, last]} == {200}


def test_a_narrow_terminal_leaves_out_names_and_cuts_the_line():
    *updates, last, _ = show(80, colour=False).replace("\n", "\r").split("\r")
    assert {len(line) for line in [*updates, last]} == {80}
    assert updates[5].strip() == "stage 2/2 · checker (3/3) · reward 0.500 ▲ · KL/δ ▄█✗ · held-out 0.350 · 2 min"
    assert show(30, colour=False).replace("\n", "\r").split("\r")[5].strip() == "stage 2/2 · checker (3/3) · r…"


def test_colours_are_those_of_the_agents_and_only_there():
    assert "\x1b[" in show(200) and "\x1b[" not in show(200, colour=False)


def test_a_pipe_has_a_line_for_each_log_and_no_other_signs():
    lines = show(80, terminal=False, colour=False).splitlines()
    assert len(lines) == 6 and lines[0].startswith("stage 1/2 · updated planner (1/3) · reward 0.200 · KL")
    assert "\r" not in "".join(lines) and lines[3].endswith("held-out 0.350 · 3 min left") and len(lines[3]) > 80


def test_an_output_that_knows_no_other_signs_gets_none():
    shown = show(200, terminal=False, colour=False, encoding="ascii")
    assert shown.isascii() and "KL/radius planner 2 solver 7 | " in shown and "reward 0.300 + | " in shown


def test_the_page_of_the_docs_is_what_is_shown():
    page = (Path(__file__).parents[2] / "docs" / "results" / "terminal.txt").read_text(encoding="utf-8")
    for title, arguments in PAGE.items():
        assert f"{title}\n{as_text(show(*arguments))}" in page


# Title, and the width, whether it is a terminal, and whether it has colours
PAGE = {
    "80 columns, without colour": (80, True, False),
    "200 columns, without colour": (200, True, False),
    "200 columns, with colour (escapes shown)": (200, True, True),
    "in a pipe": (80, False, False),
}


def as_text(shown: str) -> str:
    """Carriage returns and escapes as visible text; the spaces at the end of lines left out."""
    lines = shown.replace("\x1b", "\\e").replace("\r", "\n").splitlines()
    return "".join(f"  {line.rstrip()}\n" for line in lines)


@pytest.mark.parametrize("disable", [False, True])
def test_a_training_shows_it_by_default(tmp_path, capsys, disable):
    make_trainer(tmp_path, make_team(2), disable_tqdm=disable).train()
    shown = capsys.readouterr().out
    assert ("stage 1/1 · updated x (1/2) · reward " in shown) is not disable


if __name__ == "__main__":
    print(__doc__.strip(), "The figures are made up: `python tests/reports/test_terminal.py`.")
    for title, arguments in PAGE.items():
        print(f"\n{title}\n{as_text(show(*arguments))}", end="")
