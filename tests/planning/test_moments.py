"""The state of each optimizer against that of a real one."""

import pytest
import torch
from planning.teams import maker
from tiny import make_config, make_model
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Trainer

from trl_teamtr import Agent
from trl_teamtr.planning.moments import count_moments


@pytest.mark.parametrize("optim, copies", [("adamw_torch_fused", 2), ("sgd", 0), ("rmsprop", 1), ("adafactor", None)])
def test_moments_are_those_of_a_real_step(tmp_path, optim, copies):
    args, model = make_config(tmp_path, optim=optim), make_model()
    weights = list(model.parameters())
    kind, kwargs = Trainer.get_optimizer_cls_and_kwargs(args)
    optimizer = kind(weights, **kwargs)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    values = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    real = sum(value.numel() * value.element_size() for value in values)
    mode = FakeTensorMode()
    assert count_moments(weights, args, mode) == real
    if copies is not None:
        steps = 4 * len(weights) if copies else 0  # a counter for each
        assert real == copies * sum(weight.numel() for weight in weights) * 4 + steps
    assert count_moments([], args, mode) == 0


def test_optimizers_of_other_packages_are_refused_by_name(tmp_path, monkeypatch):
    class Foreign(torch.optim.SGD):
        __module__ = "bitsandbytes.optim"

    monkeypatch.setattr(Trainer, "get_optimizer_cls_and_kwargs", staticmethod(lambda args: (Foreign, {"lr": 1.0})))
    skeleton = maker()[0].make(Agent("a", make_model()))
    with pytest.raises(NotImplementedError, match="bitsandbytes.optim.Foreign"):
        count_moments(skeleton.trained_weights, make_config(tmp_path), FakeTensorMode())
