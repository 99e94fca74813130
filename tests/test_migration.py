"""The page for users of `GRPOTrainer` names every difference."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
from trl import GRPOConfig

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


@pytest.mark.parametrize("name", ["tools", "rollout_func", "environment_factory", "optimizers", "stop_strings"])
def test_refused_arguments_are_named(name):
    assert f"`{name}`" in PAGE or f'"{name}"' in PAGE
