"""`log.jsonl` is the log of the run: each line once, also after a kill and a resume."""

import json
import math

import pytest
from tiny import make_team, make_trainer
from transformers import TrainerCallback

from trl_teamtr.reports.log_file import LOG_FILE, _as_line


SETTINGS = {"num_stages": 3, "save_strategy": "steps", "save_steps": 2}


class Die(TrainerCallback):
    """What a kill leaves: the logs of updates after the last checkpoint, and half a line."""

    def on_log(self, args, state, control, **kwargs):
        if state.global_step == 6:
            with open(f"{args.output_dir}/{LOG_FILE}", "a") as file:
                file.write('{"reward": 0.')
            raise RuntimeError("killed")


def read(folder):
    return [json.loads(line) for line in (folder / LOG_FILE).read_text().splitlines()]


def without_times(logs):
    timed = ("step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")
    timed += ("seconds/rollouts", "seconds/scoring", "seconds/update")
    return [{key: value for key, value in log.items() if key not in timed and "runtime" not in key} for log in logs]


def test_every_log_is_a_line_and_a_new_run_begins_anew(tmp_path):
    for _ in range(2):
        trainer = make_trainer(tmp_path, make_team(2), num_stages=2)
        trainer.evaluate()
        trainer.train()
        logs = read(tmp_path)
        assert logs[1:] == trainer.state.log_history and "eval_reward" in logs[0]
        assert [log["step"] for log in logs] == [0, 1, 2, 3, 4, 4]


def test_a_killed_run_that_is_resumed_has_the_log_of_one_that_was_not(tmp_path):
    make_trainer(tmp_path / "whole", make_team(2), **SETTINGS).train()
    with pytest.raises(RuntimeError, match="killed"):
        make_trainer(tmp_path / "run", make_team(2), callbacks=[Die()], **SETTINGS).train()
    assert (tmp_path / "run" / LOG_FILE).read_text().count("\n") == 5
    make_trainer(tmp_path / "run", make_team(2, seed=9), **SETTINGS).train(resume_from_checkpoint=True)
    assert [log["step"] for log in read(tmp_path / "run")] == [1, 2, 3, 4, 5, 6, 6]
    assert without_times(read(tmp_path / "run")) == without_times(read(tmp_path / "whole"))


def test_what_is_no_number_is_null():
    assert json.loads(_as_line({"a": math.nan, "b": math.inf, "c": 1.5, "step": 3})) == {
        "a": None,
        "b": None,
        "c": 1.5,
        "step": 3,
    }


def test_the_keys_of_each_agent_are_those_of_its_own_updates(tmp_path):
    make_trainer(tmp_path, make_team(2)).train()
    first, second = read(tmp_path)[:2]
    names = ("loss", "grad_norm", "learning_rate", "entropy", "completions/mean_length", "completions/clipped_ratio")
    names += ("completions/min_terminated_length", "clip_ratio/region_mean")
    for log, own, other in ((first, "x", "y"), (second, "y", "x")):
        for name in names:
            assert log[f"agent/{own}/{name}"] == pytest.approx(log[name], rel=1e-3, abs=1e-4), name
            assert f"agent/{other}/{name}" not in log
