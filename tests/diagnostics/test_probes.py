"""Which probes a configuration asks for."""

import pytest
from datasets import Dataset
from tiny import PROMPTS, answer_reward, make_config, make_team

from trl_teamtr import TeamTRTrainer
from trl_teamtr.diagnostics.certificate_probe import CertificateProbe
from trl_teamtr.diagnostics.occupancy_probe import OccupancyProbe
from trl_teamtr.diagnostics.probes import make_probes


DATASET = Dataset.from_dict({"prompt": PROMPTS})


def make(folder, eval_dataset, **fields):
    return TeamTRTrainer(
        make_team(2), answer_reward, make_config(folder, **fields), train_dataset=DATASET, eval_dataset=eval_dataset
    )


def test_certificate_needs_held_out_prompts(tmp_path):
    with pytest.raises(ValueError, match="there is no `eval_dataset`"):
        make(tmp_path, None, log_certificate=True)


@pytest.mark.parametrize("kind", ["map", "stream", "several"])
def test_every_kind_of_dataset(tmp_path, kind):
    dataset = {"map": DATASET, "stream": DATASET.to_iterable_dataset(), "several": {"a": DATASET, "b": DATASET}}[kind]
    trainer = make(tmp_path, dataset, log_certificate=True, log_occupancy=True, certificate_prompts=5)
    probes = make_probes(trainer, dataset)
    assert [type(probe) for probe in probes] == [OccupancyProbe, CertificateProbe]
    assert [row["prompt"] for row in probes[1]._rows] == PROMPTS[:5]


def test_none_by_default(tmp_path):
    trainer = make(tmp_path, DATASET)
    assert make_probes(trainer, DATASET) == []
