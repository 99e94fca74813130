"""Every row of docs/baselines.md is a configuration that trains."""

import re
from pathlib import Path

import pytest
from tiny import make_team, make_trainer


TABLE = (Path(__file__).parent.parent / "docs" / "baselines.md").read_text()
SETTINGS = {row[0]: row[1] for row in re.findall(r"^\| (.+?) \| (`.+?) \|$", TABLE, flags=re.MULTILINE)}


@pytest.mark.parametrize("name", SETTINGS)
def test_row_trains(tmp_path, name):
    code = re.findall(r"`([a-z_]+(?:=[^`]*)?)`", SETTINGS[name])
    for field in code:
        if "=" not in field:
            continue
        settings = eval(f"dict({field.replace('=k', '=2')})")
        trainer = make_trainer(tmp_path, make_team(2), **settings)
        trainer.train()
        log = next(log for log in trainer.state.log_history if "rollout/messages" in log)
        if settings.get("enforce_radius") is False:
            assert log["agent/x/backtracks"] == 0 and log["agent/x/inner_steps"] == 4 and log["agent/x/kl"] > 0


def test_the_table_was_read():
    assert len(SETTINGS) >= 12


def test_unenforced_radius_leaves_and_says_so(tmp_path):
    trainer = make_trainer(
        tmp_path, make_team(2), enforce_radius=False, kl_coef=0.0, trust_region_radius=1e-4, num_stages=2
    )
    trainer.train()
    logs = [log for log in trainer.state.log_history if "out_of_region_rate" in log]
    assert [log["out_of_region_rate"] for log in logs] == [1.0] * 4
    assert trainer.controller.coef == 0
