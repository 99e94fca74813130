"""A launch is read from the configs that the repository ships."""

from pathlib import Path

import pytest
from tiny import make_config

from trl_teamtr.planning import Launch


CONFIGS = Path(__file__).parents[2] / "accelerate_configs"


@pytest.mark.parametrize(
    "name, expected",
    [
        ("cpu", Launch(1, on_cpu=True)),
        ("multi_gpu", Launch(8, mixed_precision="bf16")),
        ("zero2", Launch(8, 2, mixed_precision="bf16")),
        ("zero3_offload", Launch(8, 3, True, True, "bf16")),
    ],
)
def test_shipped_configs(name, expected):
    assert Launch.read(str(CONFIGS / f"{name}.yaml")) == expected


def test_the_present_launch_and_a_number_of_processes(tmp_path):
    assert Launch.of(make_config(tmp_path)) == Launch(1, on_cpu=True)
    assert Launch.read(str(CONFIGS / "zero3.yaml"), 2).num_processes == 2


def test_impossible_launches_are_refused():
    with pytest.raises(ValueError, match="stages 1, 2 and 3, got 4"):
        Launch(1, 4)
    with pytest.raises(ValueError, match="at least one process"):
        Launch(0)
