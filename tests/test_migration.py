"""The page for users of `GRPOTrainer` names every difference."""

import dataclasses
import functools
import inspect
import re
from pathlib import Path

import datasets
import pytest
import trl
from tiny import make_model, make_tokenizer
from trl import GRPOConfig

import trl_teamtr
from trl_teamtr import TeamTRConfig
from trl_teamtr.options import unsupported


PAGE = (Path(__file__).parents[1] / "docs" / "migration.md").read_text()


def fields_of(config):
    return {field.name: field.default for field in dataclasses.fields(config)}


def test_defaults_that_differ_are_named():
    theirs, ours = fields_of(GRPOConfig), fields_of(TeamTRConfig)
    different = [name for name in theirs if ours[name] != theirs[name] and theirs[name] is not dataclasses.MISSING]
    assert len(different) >= 3
    assert [name for name in different if f"`{name}`" not in PAGE] == []


def test_refused_options_are_named():
    refused = set(re.findall(r"args\.(\w+)", inspect.getsource(unsupported.refuse_unsupported))) - {"deepspeed_plugin"}
    assert len(refused) >= 8
    assert [name for name in sorted(refused) if f"`{name}" not in PAGE] == []


@pytest.mark.parametrize("name", ["rollout_func", "environment_factory", "optimizers", "stop_strings"])
def test_refused_arguments_are_named(name):
    assert f"`{name}`" in PAGE or f'"{name}"' in PAGE


def scripts_of_the_diff():
    """The script before and after, and the number of changed lines."""
    (diff,) = re.findall(r"```diff\n(.*?)```", PAGE, re.DOTALL)
    lines = diff.splitlines()
    before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    return before, after, sum(line.startswith("+") for line in lines)


@pytest.mark.parametrize("changed", [False, True], ids=["GRPO", "team"])
def test_the_script_of_the_page_runs_before_and_after_few_changes(tmp_path, monkeypatch, changed):
    """As printed, but for the model, the dataset and the sizes, which stand for those of the hub."""
    before, after, number = scripts_of_the_diff()
    assert number <= 5
    monkeypatch.chdir(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}.{% endfor %}"
    make_model().save_pretrained(tmp_path / "Qwen" / "Qwen3-0.6B")
    tokenizer.save_pretrained(tmp_path / "Qwen" / "Qwen3-0.6B")
    rows = [{"prompt": [{"role": "user", "content": "ua" * n}], "solution": str(n)} for n in range(1, 9)]
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: datasets.Dataset.from_list(rows))
    small = {"max_steps": 2, "max_completion_length": 2, "use_cpu": True, "bf16": False, "report_to": "none"}
    for module, name in ((trl, "GRPOConfig"), (trl_teamtr, "TeamTRConfig")):
        monkeypatch.setattr(module, name, functools.partial(getattr(module, name), **small))
    namespace = {}
    exec(after if changed else before, namespace)
    assert namespace["trainer"].state.global_step == 2
    assert (tmp_path / "run" / "team.json").is_file() is changed
