"""The table of transcripts in the terminal: who said what, at any width, with and without colour, and in a pipe."""

import io
from pathlib import Path
from types import SimpleNamespace

import torch
from datasets import Dataset
from rich.console import Console
from test_terminal import as_text
from tiny import PROMPTS, answer_reward, make_team, make_trainer

from trl_teamtr.reports.transcript_table import TranscriptTable


def said(agent, text, finished=True, **more):
    return {"agent": agent, "text": text, "tokens": 5, "finished": finished, **more}


PROMPT = [
    {
        "role": "user",
        "content": "How many primes are there between the two numbers that the others know? Say it in one word.",
    }
]
LONG = "The primes between 10 and 30 are 11, 13, 17, 19, 23 and 29; I have checked 21 = 3 · 7 and 27 = 3 · 9 too, so that makes six."
COMMON = {"step": 5, "stage": 2, "agent": "solver", "prompt": PROMPT, "private": {"planner": "10", "solver": "30"}}
ENTRIES = [
    COMMON
    | {
        "messages": [
            said("planner", "Mine is 10."),
            said("solver", LONG, thought="Between 10 and 30?"),
            said("judge", "Six."),
        ],
        "reward": 1.15,
        "advantage": 1.2247,
        "rewards": {"accuracy": 1.0, "brevity": 0.3},
    },
    COMMON
    | {
        "messages": [
            said("planner", "Ten!"),
            said("solver", "Then there are, I think, five of", False),
            said("judge", "Five"),
        ],
        "reward": 0.25,
        "advantage": -0.8165,
        "rewards": {"accuracy": 0.0, "brevity": 0.1},
    },
]
EVALUATION = [
    COMMON | {"agent": None, "messages": [said("judge", "Six.")], "reward": None, "rewards": {"accuracy": None}}
]


def show(width, terminal=True, colour=True, entries=(ENTRIES, EVALUATION)):
    """Two rollouts of an update, with figures that are made up, and one of an evaluation."""
    output = io.StringIO()
    console = Console(
        file=output,
        width=width,
        force_terminal=terminal,
        color_system="standard" if colour else None,
        legacy_windows=False,
        highlight=False,
    )
    members = [SimpleNamespace(name=name) for name in ("planner", "solver")]
    trainer = SimpleNamespace(
        trained_members=members,
        team=SimpleNamespace(names=("planner", "judge", "solver")),
        transcript_log=SimpleNamespace(last=[]),
        reward_func_names=["accuracy", "brevity"],
        reward_weights=torch.tensor([1.0, 0.5]),
    )
    table = TranscriptTable(trainer, None, console)
    state = SimpleNamespace(is_world_process_zero=True)
    for shown in entries:
        trainer.transcript_log.last = shown
        table.on_log(None, state, None)
        table.on_log(None, state, None)  # of the same rollouts once
    return output.getvalue()


def words(text):
    return " ".join(text.split())


def test_each_text_is_there_once_and_whole_at_any_width():
    for width in (80, 200):
        shown = show(width, colour=False, entries=[ENTRIES])
        assert {len(line) for line in shown.splitlines()} == {width}
        flat = words(shown)
        for text in (LONG, PROMPT[0]["content"], "Mine is 10.", "Between 10 and 30?", "Ten!", "Six."):
            assert flat.count(text) == 1, text
        assert flat.count("planner reads 10") == flat.count("solver reads 30") == 1


def test_calls_of_tools_are_shown_before_what_is_said():
    entry = COMMON | {
        "agent": None,
        "reward": 1.0,
        "messages": [said("solver", "Six.", tools=['count({"to": 30}) -> 10'])],
    }
    flat = words(show(200, colour=False, entries=[[entry]]))
    assert flat.index('solver calls count({"to": 30}) -> 10') < flat.index("Six.")


def test_it_says_who_is_updated_and_what_the_reward_was_made_of():
    flat = words(show(200, colour=False))
    assert "update 5 stage 2, solver is updated on these" in flat and "stage 2, evaluation" in flat
    assert "rollout 1 reward 1.15 = accuracy 1 + 0.5 × brevity 0.3, advantage +1.22" in flat
    # The rest is of rewards that only the updated agent has
    assert "rollout 2 reward 0.25 = accuracy 0 + 0.5 × brevity 0.1 + solver's own 0.2, advantage -0.82" in flat
    assert "five of (cut)" in flat and "rollout 1 reward none" in flat


def test_speakers_have_the_colours_of_the_line_and_nothing_else_of_a_pipe():
    shown = show(200)
    for name, code in (("planner", "34"), ("solver", "33"), ("judge", "32")):  # trained ones first, as in the line
        assert f"\x1b[1;{code}m{name}" in shown
    assert "\x1b" not in show(200, colour=False)
    lines = show(80, terminal=False, colour=False).splitlines()
    assert f"solver: {LONG}" in lines and "update 5: stage 2, solver is updated on these" in lines


def test_a_message_cannot_write_to_the_terminal_as_it_likes():
    evil = COMMON | {"messages": [said("judge", "a\x1b[2J\rb\x07[bold]c")], "reward": 0.0}
    shown = show(80, colour=False, entries=[[evil]])
    assert "\x1b" not in shown and "\r" not in shown and "\x07" not in shown and "[bold]c" in shown


def test_the_page_of_the_docs_is_what_is_shown():
    page = (Path(__file__).parents[2] / "docs" / "results" / "transcripts.txt").read_text(encoding="utf-8")
    for title, arguments in PAGE.items():
        assert f"{title}\n{as_text(show(*arguments))}" in page


def test_log_completions_shows_it_in_place_of_trls_own(tmp_path, capsys):
    rows = [{"prompt": prompt, "agent_prompts": {"x": None, "y": "uu"}} for prompt in PROMPTS]
    trainer = make_trainer(
        tmp_path,
        make_team(2),
        answer_reward,
        Dataset.from_list(rows),
        log_completions=True,
        num_completions_to_print=2,
    )
    trainer.train()
    shown = capsys.readouterr().out
    assert "x is updated on these" in shown and "y is updated on these" in shown and "y reads: uu" in shown
    assert shown.count("rollout 2: reward ") == 2 and "rollout 3" not in shown and "= answer_reward" in shown
    assert "Completion" not in shown and len(list((tmp_path / "completions").glob("*.parquet"))) == 2


# Title, and the width, whether it is a terminal, and whether it has colours
PAGE = {
    "80 columns, without colour": (80, True, False),
    "200 columns, without colour": (200, True, False),
    "80 columns, with colour (escapes shown)": (80, True, True),
    "200 columns, with colour (escapes shown)": (200, True, True),
    "in a pipe": (80, False, False),
}


if __name__ == "__main__":
    print(
        __doc__.strip(), "The figures are made up: `PYTHONPATH=tests python tests/reports/test_transcript_table.py`."
    )
    for title, arguments in PAGE.items():
        print(f"\n{title}\n{as_text(show(*arguments))}", end="")
