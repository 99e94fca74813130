"""A team of each architecture is trained, resumed, saved and loaded as it should be, or refused before training."""

import pytest
import torch
from families import FAMILIES
from family_sweep import Row, are_equal, sweep


# A plain decoder, a mixture of experts that is saved under other names, and a state space model
FEW = ("llama", "mixtral", "mamba")
# By design: no config field that TRL's router loss needs; a convolution that reads the padding
REFUSED = {"granitemoe": "num_experts", "recurrent_gemma": "behind 32 padding tokens"}


def check(kind, folder):
    row = sweep(kind, folder)
    assert row.wrong == [] and (kind in REFUSED) == bool(row.refused), row.line()
    assert REFUSED.get(kind, "") in row.refused


@pytest.mark.parametrize("kind", FEW)
def test_few_architectures(kind, tmp_path):
    check(kind, tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind not in FEW])
def test_other_architectures(kind, tmp_path):
    check(kind, tmp_path)


@pytest.mark.parametrize("found, wrong", [
    ({"trained": True, "padded": 1e-6}, []),
    ({"trained": False, "padded": 1e-6}, ["trained"]),
    ({"padded": 0.1}, ["padded"]),
    ({"padded": float("nan")}, ["padded"]),
])  # fmt: skip
def test_what_counts_as_wrong(found, wrong):
    assert Row("llama", found=found).wrong == wrong


def test_equal_states_are_told_from_others():
    one = ([torch.ones(2)], [{0: {"step": 1.0, "exp_avg": torch.zeros(2)}}])
    other = ([torch.ones(2)], [{0: {"step": 1.0, "exp_avg": torch.ones(2)}}])
    assert are_equal(one, one) and not are_equal(one, other)
