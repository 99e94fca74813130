"""Settings for all tests: no network, no telemetry, one thread."""

import os


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CI"] = "1"  # TRL sends no telemetry then
os.environ.setdefault("WANDB_MODE", "offline")

import pytest  # noqa: E402
import torch  # noqa: E402

from trl_teamtr import TeamTRConfig


torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def make_config(tmp_path):
    """Configs of runs in the test's folder."""

    def make(**kwargs):
        return TeamTRConfig(str(tmp_path / "run"), use_cpu=True, bf16=False, report_to="none", **kwargs)

    return make
