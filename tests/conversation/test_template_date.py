"""The date that chat templates print is that of the run, not that of the clock."""

import json
from datetime import datetime
from pathlib import Path

import pytest
import torch
import transformers.utils.chat_template_utils as their_clock
import trl
from datasets import Dataset
from resuming import StopAfter, final_state
from tiny import make_model, make_trainer
from tokenizers_for_tests import tokenizer_for

from trl_teamtr import Agent, Team, TeamTRConfig
from trl_teamtr.conversation import template_date as our_clock
from trl_teamtr.conversation.template_date import with_date
from trl_teamtr.evaluation import EvaluationConfig, evaluate_protocols
from trl_teamtr.policy.speaker import Speaker


FOLDER = Path(trl.__file__).parent / "chat_templates"
# gpt-oss asks for the date itself; Llama 3.2 takes it as `date_string`, and asks if that is not given
TEMPLATES = {"gptoss": "Current date: 2026-01-31", "llama3_2": "Today Date: 31 Jan 2026"}
DATED = sorted(path.stem for path in FOLDER.glob("*.jinja") if "strftime_now" in path.read_text())
ROWS = Dataset.from_dict({"prompt": [[{"role": "user", "content": word}] for word in ("a", "aa", "ab", "b")] * 2})


@pytest.fixture
def set_clock(monkeypatch):
    def set_clock(day):
        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.fromisoformat(day)

        for module in (their_clock, our_clock):
            monkeypatch.setattr(module, "datetime", Clock)

    return set_clock


def make_team(name, **fields):
    tokenizer = tokenizer_for((FOLDER / f"{name}.jinja").read_text())
    model = make_model(len(tokenizer))
    model.config.max_position_embeddings = 600
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return [Agent("x", model, processing_class=tokenizer, **fields)]


SETTINGS = {"num_stages": 2, "save_strategy": "steps", "save_steps": 1}


def make_run(folder, name, **fields):
    return make_trainer(folder, make_team(name), lambda completions, **kwargs: [len(str(c)) for c in completions], ROWS,
                        **SETTINGS | fields)  # fmt: skip


def opening(trainer):
    renderer = trainer.speaker.renderer_for(ROWS[0]["prompt"])
    return trainer._tokenizer.decode(renderer.opening(trainer.team.turn_loop.begin([ROWS[0]])[0], []))


@pytest.mark.parametrize("name", TEMPLATES)
def test_run_that_is_resumed_on_a_later_day_equals_an_uninterrupted_one(tmp_path, set_clock, name):
    printed = TEMPLATES[name]
    set_clock("2026-01-31")
    whole = make_run(tmp_path / "whole", name)
    whole.train()
    assert printed in opening(whole)
    make_run(tmp_path / "run", name, callbacks=[StopAfter(1)]).train()
    set_clock("2026-12-24")
    resumed = make_run(tmp_path / "run", name)
    assert printed not in opening(resumed)
    resumed.train(resume_from_checkpoint=True)
    assert printed in opening(resumed) and resumed.args.template_date == "2026-01-31"
    torch.testing.assert_close(final_state(resumed), final_state(whole), rtol=0, atol=0)

    # What goes on from the run prints its date
    assert (
        json.loads((tmp_path / "run" / "checkpoint-2" / "training_args.json").read_text())["template_date"]
        == "2026-01-31"
    )
    team = Team.from_pretrained(str(tmp_path / "run" / "checkpoint-2"))
    row = team.turn_loop.begin([ROWS[0]])[0]
    assert printed in resumed._tokenizer.decode(team.speakers[0].renderer_for(row.prompt).opening(row, []))


def test_evaluation_of_a_saved_team_prints_the_date_of_its_run_or_the_one_that_is_given(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", "gptoss", num_stages=1, template_date="2026-01-31", save_strategy="no")
    run.train()
    run.save_model()
    printed, fix_date = [], Speaker.fix_date
    monkeypatch.setattr(Speaker, "fix_date", lambda self, date: [printed.append(date), fix_date(self, date)])
    for date in (None, "2020-02-29"):
        args = TeamTRConfig(
            str(tmp_path / "eval"), use_cpu=True, bf16=False, max_completion_length=2, template_date=date
        )
        config = EvaluationConfig(protocols=["team", "single"])
        evaluate_protocols(str(tmp_path / "run"), lambda completions, **kwargs: [0.0] * len(completions),
                           ROWS.select([0]), args, config)  # fmt: skip
    assert printed == ["2026-01-31"] * 2 + ["2020-02-29"] * 2


def render(template, **kwargs):
    turns = [{"role": "user", "content": "a"}]
    return tokenizer_for(template).apply_chat_template(turns, tokenize=False, chat_template=template, **kwargs)


ODD = {
    "formats": "{{ strftime_now('%-d.%-m.%y, %A %B %H:%M:%S 100%%') }}{{ strftime_now(format='%F|%j|%e') }}",
    "blanks": "\n\n  {% if strftime_now is defined %}\n  {{ strftime_now('%Y') }}{% endif %}\n",
    "computed": "{% set day = '%d' %}{{ strftime_now(day + '%m') | trim }}",
}


@pytest.mark.parametrize("name", [*DATED, *ODD])
@pytest.mark.parametrize("day", ["2026-01-31", "2024-02-09"])
def test_template_prints_a_date_as_it_would_on_that_day(set_clock, name, day):
    template = ODD[name] if name in ODD else (FOLDER / f"{name}.jinja").read_text()
    set_clock(day)
    expected = render(template)
    set_clock("2031-12-24")
    assert render(with_date(template, day)) == expected != render(template)


def test_template_without_a_date_and_a_date_that_is_not_given_change_nothing():
    template = "{{ messages[0]['content'] }}{{ date_string }}"
    assert with_date(template, "2026-01-31") == template
    asks = template + "{{ strftime_now('%Y') }}"
    assert with_date(asks, None) == asks
    assert render(with_date(asks, "2026-01-31"), date_string="May") == "aMay2026"


def test_date_of_the_config_is_kept_on_resume_or_listed_as_changed(tmp_path):
    make_run(tmp_path, "gptoss", num_stages=1, template_date="2026-01-31").train()
    with pytest.warns(UserWarning, match="`template_date` '2026-01-31' → '2020-02-29'"):
        changed = make_run(tmp_path, "gptoss", num_stages=1, template_date="2020-02-29")
        changed.train(resume_from_checkpoint=True)
    assert "Current date: 2020-02-29" in opening(changed)
