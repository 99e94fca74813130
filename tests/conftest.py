"""Settings for all tests: no network, no telemetry, one thread."""

import os


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CI"] = "1"  # TRL sends no telemetry then
os.environ.setdefault("WANDB_MODE", "offline")

import pytest  # noqa: E402
import torch  # noqa: E402


torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
