"""Each process samples its own rows on engines of its own, and all of them get each version."""

import json
import os

import pytest
from launching import derive_config, launch
from vllm_teams import save_base


@pytest.mark.parametrize("engine, kind", [("multi_gpu", "MULTI_CPU"), ("zero2", "DEEPSPEED"), ("zero3", "DEEPSPEED")])
def test_processes_speak_for_themselves_with_the_same_weights(tmp_path, engine, kind):
    base, other = save_base(tmp_path / "base"), save_base(tmp_path / "other", seed=3)
    launch(derive_config(engine, tmp_path), "run_colocated.py", "--fake", base, other, tmp_path)
    ours = [json.loads((tmp_path / f"colocated-{rank}.json").read_text()) for rank in (0, 1)]
    assert all(found["processes"] == 2 and found["kind"] == kind for found in ours)
    assert ours[0]["sums"] == ours[1]["sums"] and max(ours[0]["largest"]) < 1e-4
    for key in ("versions", "reloads", "held"):
        assert ours[0][key] == ours[1][key]
    # Once before it first speaks, and at most once after each of its two updates
    (adapters, _), (_, reloads) = ours[0]["versions"], ours[0]["reloads"]
    assert all(2 <= count <= 3 for count in adapters) and 2 <= reloads <= 3 and ours[0]["held"] == [2, 0]
    # Seeds of their own, but for those of the checks
    mine, theirs = ({seed for engine in found["seeds"] for seed in engine if seed >= 8} for found in ours)
    assert mine and theirs and not mine & theirs
    assert not os.path.exists(tmp_path / "run" / ".vllm")
