"""What cannot be honoured is refused with what to do instead."""

from types import SimpleNamespace

import pytest
from tiny import make_config

from trl_teamtr.options.checking import check
from trl_teamtr.options.unsupported import refuse_unsupported


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"sync_ref_model": True}, "`sync_ref_model=True` is not supported.*use `beta`"),
        ({"enable_jit_checkpoint": True}, "each process for itself. Leave it `False`"),
        ({"lr_scheduler_type": "greedy", "eval_strategy": "epoch"}, "`lr_scheduler_type='greedy'` is not supported"),
        ({"optim": "schedule_free_adamw"}, "is not supported: such an optimizer has other weights for training"),
        ({"use_liger_kernel": True}, "`use_liger_kernel=True` is not supported"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make_config("x", **fields)


@pytest.mark.parametrize("section", ["optimizer", "scheduler"])
def test_deepspeed_may_not_own_the_schedule(monkeypatch, section):
    """It would step it at every inner iteration."""
    plugin = SimpleNamespace(deepspeed_config={"zero_optimization": {"stage": 2}, section: {"type": "any"}})
    args = make_config("x")
    monkeypatch.setattr(args, "deepspeed_plugin", plugin)
    with pytest.raises(ValueError, match=f"has the section.s. {section}, .* Remove them"):
        refuse_unsupported(args)


def test_check():
    check(True, "never")
    with pytest.raises(ValueError, match="told"):
        check(False, "told")
