"""What cannot be honoured is refused with what to do instead."""

import pytest
from tiny import make_config

from trl_teamtr.unsupported import check


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"use_vllm": True}, "`use_vllm=True` is not supported.*generate with transformers"),
        ({"sync_ref_model": True}, "`sync_ref_model=True` is not supported.*use `beta`"),
        ({"enable_jit_checkpoint": True}, "each process for itself. Leave it `False`"),
        ({"use_liger_kernel": True}, "`use_liger_kernel=True` is not supported"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make_config("x", **fields)


def test_check():
    check(True, "never")
    with pytest.raises(ValueError, match="told"):
        check(False, "told")
