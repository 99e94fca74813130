"""Advice is given where a plan does not fit, and names what exists."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from planning.teams import lora, pair, plan_of, save_model

from trl_teamtr import TeamTRConfig
from trl_teamtr.planning import Launch


ROOT = Path(__file__).parents[2]
OTHERS = {"peft", "--use_peft", "--num_processes", "dtype"}  # of agents, of TRL's and accelerate's commands


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("base"))


def test_no_advice_where_it_fits(tmp_path, path):
    assert plan_of(tmp_path, pair(path), device_memory_gib=80).advice == []


@pytest.mark.parametrize(
    "launch, adapters",
    [
        (Launch(), False),
        (Launch(), True),
        (Launch(8, 2), False),
        (Launch(8, 3), False),
        (Launch(8, 3, True, True), False),
        (Launch(on_cpu=True), False),
    ],
)
def test_all_that_is_named_exists(tmp_path, path, launch, adapters):
    team = pair(path, peft_config=lora() if adapters else None)
    found = plan_of(tmp_path, team, launch=launch, device_memory_gib=1e-6)
    assert found.fits is False and found.advice and "does not fit" in str(found)
    options = {field.name for field in fields(TeamTRConfig)} | OTHERS
    for text in found.advice:
        for name in re.findall(r"`([^`=:]+?)(?:[=:][^`]*)?`", text):
            assert name in options or name.startswith("peft"), text
        for file in re.findall(r"accelerate_configs/\w+\.yaml", text):
            assert (ROOT / file).is_file()
    named = " ".join(found.advice)
    assert "LoRA" not in named or not adapters
    assert "zero3.yaml" not in named or launch.zero_stage < 3
    assert "offload_idle_agents" not in named or not (launch.zero_stage or launch.on_cpu)


def test_checkpointing_is_advised_if_it_is_off(tmp_path, path):
    for on in (False, True):
        found = plan_of(tmp_path, pair(path), gradient_checkpointing=on, device_memory_gib=1e-6, prompt_length=80)
        assert any("gradient_checkpointing" in text for text in found.advice) != on
