"""Each process sends its own rows to the servers, one publishes, and all of them wait for a server that is lost."""

import json
import os

import pytest
from fake_vllm import serving
from launching import derive_config, launch
from vllm_teams import save_base


@pytest.mark.parametrize("engine, kind", [("multi_gpu", "MULTI_CPU"), ("zero2", "DEEPSPEED"), ("zero3", "DEEPSPEED")])
@pytest.mark.parametrize("dies_after", [None, 40])
def test_processes_speak_for_themselves_and_publish_once(tmp_path, engine, kind, dies_after):
    base, other = save_base(tmp_path / "base"), save_base(tmp_path / "other", seed=3)
    with serving(base, dies_after=dies_after) as server, serving(other) as own:
        config = derive_config(engine, tmp_path)
        launch(config, "run_vllm.py", base, server.url, other, own.url, tmp_path)
        ours = [json.loads((tmp_path / f"vllm-{rank}.json").read_text()) for rank in (0, 1)]
        assert all(found["processes"] == 2 and found["kind"] == kind for found in ours)
        assert ours[0]["sums"] == ours[1]["sums"] and max(ours[0]["largest"]) < 1e-4
        repeated = int(dies_after is not None)
        assert [found["repeated"] for found in ours] == [repeated] * 2
        # Once before it first speaks, at most once after each of its two updates, and once after the death
        for name in "xy":
            versions = server.versions(name)
            assert len(set(versions)) == len(versions) and 2 <= len(versions) <= 3 + repeated
        assert 2 <= len(own.sent("/collective_rpc")) <= 3
        assert server.held <= 3 and server.missing == [] and not server.adapters
        assert not os.path.exists(tmp_path / "run" / ".vllm")
