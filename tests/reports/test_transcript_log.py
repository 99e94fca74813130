"""`transcripts.jsonl` has some rollouts of every update and evaluation, once, with their rewards."""

import json
import math

import pytest
from tiny import answer_reward, make_team, make_trainer
from transformers import TrainerCallback

from trl_teamtr import Message, Transcript
from trl_teamtr.reports import transcript_log
from trl_teamtr.reports.transcript_log import KEPT, TRANSCRIPT_FILE, TranscriptLog, describe


SETTINGS = {"num_stages": 3, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}


class Die(TrainerCallback):
    def on_log(self, args, state, control, **kwargs):
        if state.global_step == 5:
            with open(f"{args.output_dir}/{TRANSCRIPT_FILE}", "a") as file:
                file.write('{"step": 6')
            raise RuntimeError("killed")


def read(folder):
    return [json.loads(line) for line in (folder / TRANSCRIPT_FILE).read_text().splitlines()]


def test_every_update_and_evaluation_has_some(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), **SETTINGS)
    trainer.evaluate()
    trainer.train()
    lines = read(tmp_path)
    kinds = [(line["step"], line["stage"], line["agent"]) for line in lines[::KEPT]]
    assert kinds == [
        (0, 0, None),
        *((1, 1, "x"), (2, 1, "y"), (2, 1, None)),
        *((3, 2, "x"), (4, 2, "y"), (4, 2, None)),
        *((5, 3, "x"), (6, 3, "y"), (6, 3, None)),
    ]
    assert len(lines) == KEPT * len(kinds)
    for line in lines:
        messages = [{"content": message["text"]} for message in line["messages"]]
        assert line["reward"] == pytest.approx(answer_reward(None, [messages])[0], abs=1e-5)
        assert ("advantage" in line) == (line["agent"] is not None)
    assert [line["prompt"] for line in lines[:KEPT]] == [line["prompt"] for line in lines[-KEPT:]]  # held-out, again


def test_a_killed_run_that_is_resumed_has_those_of_one_that_was_not(tmp_path):
    make_trainer(tmp_path / "whole", make_team(2), **SETTINGS).train()
    with pytest.raises(RuntimeError, match="killed"):
        make_trainer(tmp_path / "run", make_team(2), callbacks=[Die()], **SETTINGS).train()
    make_trainer(tmp_path / "run", make_team(2, seed=9), **SETTINGS).train(resume_from_checkpoint=True)
    assert read(tmp_path / "run") == read(tmp_path / "whole")
    make_trainer(tmp_path / "run", make_team(2), **SETTINGS).train()  # a new run in a used folder
    assert read(tmp_path / "run") == read(tmp_path / "whole")


def test_long_texts_are_cut_and_what_is_no_reward_is_none(tmp_path):
    prompt = [{"role": "user", "content": "a" * 5000}]
    transcript = Transcript(prompt, ("x",), {"x": "u"}, messages=[Message("x", "b" * 2001, (1, 2), False)])
    described = describe(transcript)
    assert described["prompt"][0]["content"] == f"{'a' * 2000} … (3000 more characters)"
    assert described["messages"] == [
        {"agent": "x", "text": f"{'b' * 2000} … (1 more characters)", "tokens": 2, "finished": False}
    ]
    TranscriptLog(str(tmp_path), True).write(1, 1, "x", [transcript], [math.nan], [0.5])
    (line,) = read(tmp_path)
    assert (line["reward"], line["advantage"], line["private"]) == (None, 0.5, {"x": "u"})
    assert describe(Transcript("au", ("x",)))["prompt"] == [{"role": "user", "content": "au"}]


def test_the_file_does_not_grow_forever_and_other_processes_write_none(tmp_path, monkeypatch):
    monkeypatch.setattr(transcript_log, "MAX_BYTES", 300)
    log, other = TranscriptLog(str(tmp_path), True), TranscriptLog(str(tmp_path / "other"), False)
    for step in range(1, 50):
        for each in (log, other):
            each.write(step, step, "x", [Transcript("au", ("x",))] * 2, [0.0] * 2)
    assert (tmp_path / TRANSCRIPT_FILE).stat().st_size < 600 and not (tmp_path / "other").exists()


def test_private_thoughts_are_kept_beside_the_answer():
    (message,) = describe(Transcript("au", ("x",), messages=[Message("x", "a", (0, 1), thought="hm")]))["messages"]
    assert message == {"agent": "x", "text": "a", "tokens": 2, "finished": True, "thought": "hm"}
