"""A member is replaced between stages on two processes, by DDP and by ZeRO-2: it starts anew, and a resume is bit-identical."""

import pytest
import torch
from launching import derive_config, launch
from teams import save_models


@pytest.mark.parametrize("engine", ["multi_gpu", "zero2"])
def test_a_member_is_replaced_between_stages(tmp_path, engine):
    save_models(tmp_path / "models")
    launch(derive_config(engine, tmp_path), "run_swap.py", tmp_path / "models", tmp_path, "x", "y", timeout=900)
    found = torch.load(tmp_path / "swap-0.pt", weights_only=False)
    for name, position in (("x", 0), ("y", 1)):
        run = found[name]
        assert run["joined"][position] == 4 and run["joined"][1 - position] == 0
        assert run["kept"] and len(run["kept"]) == len(run["others"])
        for before, after in zip(run["kept"], run["others"], strict=True):
            assert torch.equal(torch.as_tensor(before), torch.as_tensor(after))
        assert not any(torch.as_tensor(value).abs().sum() > 0 for value in run["new"])
        for member, weights in run["whole"].items():
            again = run["again"][member]
            pairs = weights.items() if isinstance(weights, dict) else enumerate(weights)
            assert all(torch.equal(value, again[key]) for key, value in pairs)
