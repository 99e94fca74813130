"""Each process asks the endpoint of a remote member for its own rows; what fails on one ends the run on both, and loses nothing."""

import json

from fake_endpoint import answering
from launching import derive_config, launch


def test_processes_ask_for_themselves_and_fail_together(tmp_path):
    with answering() as server, answering(dies_after=20) as mortal:
        launch(derive_config("multi_gpu", tmp_path), "run_remote.py", server.url, mortal.url, tmp_path)
        ours = [json.loads((tmp_path / f"remote-{rank}.json").read_text()) for rank in (0, 1)]
        assert all(found["processes"] == 2 and "cannot be reached" in found["told"] for found in ours)
        assert ours[0]["step"] == ours[1]["step"] > 0
        assert ours[0]["sums"] == ours[1]["sums"] and ours[0]["sums"][0] == ours[0]["sums"][1]
        # Two processes have drawn other seeds
        assert len({body["seed"] for body in server.bodies}) > 8
