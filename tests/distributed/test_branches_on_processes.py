"""Groups by turn on two processes, under ZeRO-3 and replicated: none waits for the other for ever, and both learn what one process learns."""

import json

import pytest
from launching import derive_config, launch
from run_branches import run
from teams import save_models


@pytest.fixture(scope="module", params=["zero3", "multi_gpu"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("branches")
    save_models(folder)
    launch(derive_config(request.param, folder), "run_branches.py", folder, folder)
    return folder


@pytest.mark.parametrize("credit", ["suffix", "message"])
def test_updates_are_those_of_one_process_on_the_same_groups(folder, tmp_path, credit):
    ours = [json.loads((folder / f"{credit}-{rank}.json").read_text()) for rank in (0, 1)]
    given = []
    for first, second in zip(*ours, strict=True):
        both = {name: first[name] + second[name] for name in ("rows", "said", "weights")}
        credited = None if credit == "suffix" else first["credited"] + second["credited"]
        given.append(both | {"credited": credited, "team_every": first["team_every"]})
    alone = run(folder, tmp_path, num_processes=1, credit=credit, given=given)
    differ = 0
    for first, second, one in zip(*ours, alone, strict=True):
        assert first["report"] == second["report"]
        assert first["report"] == pytest.approx(one["report"], rel=5e-3, abs=1e-6)
        assert first["norm"] == pytest.approx(one["norm"], rel=1e-5)
        said = first["said"] + second["said"]
        differ += sum(trunk != branch for trunk, branch in zip(said[::2], said[1::2], strict=True))
    assert differ > 3 and len({len(each) for each in said}) > 1
    assert sum(one["report"][1] > 0 for one in alone) > 1
