"""Every loss type that is normalised over all processes has the gradient of one process."""

import pytest
import torch
from launching import derive_config, launch
from run_losses import LOSSES, run
from teams import save_models


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("losses")
    save_models(folder)
    launch(derive_config("multi_gpu", folder), "run_losses.py", folder, folder)
    return folder, torch.load(folder / "losses-0.pt")


@pytest.mark.parametrize("loss_type", LOSSES)
def test_gradient_does_not_depend_on_the_number_of_processes(found, loss_type, tmp_path):
    folder, gradients = found
    one = run(loss_type, folder, tmp_path, num_processes=1)
    for name, gradient in one.items():
        scale = max(g.abs().max().item() for g in one.values())
        torch.testing.assert_close(gradients[loss_type][name], gradient, rtol=1e-4, atol=1e-6 * scale)
    assert scale > 1e-4
