import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch
from tiny import make_team, make_trainer
from transformers import TrainerCallback

from trl_teamtr.runs.manifest import verify


SETTINGS = {"num_stages": 4, "lr_scheduler_type": "linear"}


class Terminate(TrainerCallback):
    """What a cluster does: SIGTERM, once, in the middle of an update."""

    def __init__(self, update):
        self.update = update

    def on_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.update:
            os.kill(os.getpid(), signal.SIGTERM)


def checkpoints(folder):
    return sorted(path.name for path in Path(folder).glob("*checkpoint*"))


def weights(trainer):
    return [torch.cat([p.detach().flatten() for p in member.model.parameters()]) for member in trainer.members]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"save_strategy": "steps", "save_steps": 3},
        {"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 3, "metric_for_best_model": "reward"},
        {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
        | {"load_best_model_at_end": True, "metric_for_best_model": "reward"},
    ],
    ids=["no", "steps", "best", "load-best"],
)
def test_run_ends_its_update_saves_once_and_stops(tmp_path, monkeypatch, fields):
    handler = signal.getsignal(signal.SIGTERM)
    trainer = make_trainer(tmp_path, make_team(2), callbacks=[Terminate(3)], **SETTINGS | fields)
    saved = []
    save = trainer._save_checkpoint
    monkeypatch.setattr(
        trainer, "_save_checkpoint", lambda *args: (saved.append(trainer.state.global_step), save(*args))
    )
    assert trainer.train().global_step == 3
    assert trainer.preemption.stopped_at == 3 and saved.count(3) == 1
    assert "checkpoint-3" in checkpoints(tmp_path)
    verify(str(tmp_path / "checkpoint-3"), trainer.accelerator)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_preempted_run_that_is_resumed_equals_an_uninterrupted_one(tmp_path, caplog):
    make_trainer(tmp_path / "a", make_team(2), callbacks=[Terminate(3)], **SETTINGS).train()
    assert "Preempted by SIGTERM after update 3 of 8" in caplog.text and "resume_from_checkpoint=True" in caplog.text
    resumed = make_trainer(tmp_path / "a", make_team(2, seed=9), **SETTINGS)
    resumed.train(resume_from_checkpoint=True)
    whole = make_trainer(tmp_path / "b", make_team(2), **SETTINGS)
    whole.train()
    assert resumed.preemption.stopped_at is None
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(whole), strict=True))


def test_signal_in_the_last_update_changes_nothing(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), callbacks=[Terminate(2)], **SETTINGS | {"num_stages": 1})
    trainer.train()
    assert trainer.preemption.stopped_at is None and checkpoints(tmp_path) == []


def test_run_that_fails_gives_the_signal_back(tmp_path):
    def broken(**kwargs):
        raise KeyError("oh")

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="'broken' raised"):
        make_trainer(tmp_path, make_team(1), broken, **SETTINGS).train()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_training_in_another_thread_leaves_the_signal_alone(tmp_path):
    trainer = make_trainer(tmp_path, make_team(1), **SETTINGS | {"num_stages": 1})
    handler = signal.getsignal(signal.SIGTERM)
    seen = []
    trainer.add_callback(
        type(
            "Look",
            (TrainerCallback,),
            {"on_step_end": lambda *args, **kwargs: seen.append(signal.getsignal(signal.SIGTERM))},
        )
    )
    thread = threading.Thread(target=trainer.train)
    thread.start()
    thread.join()
    assert seen == [handler] and trainer.state.global_step == 1


def test_terminated_process_exits_with_status_0_and_leaves_a_checkpoint(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent("""
            import time
            from tiny import answer_reward, make_team, make_trainer

            def slow_reward(**kwargs):
                time.sleep(0.2)
                print("rewarded", flush=True)
                return answer_reward(**kwargs)

            trainer = make_trainer("run", make_team(2), slow_reward, num_stages=500)
            trainer.train()
            print("stopped at", trainer.preemption.stopped_at)
        """)
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script)]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("rewarded"):
            break
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    update = int(output.split()[-1])
    assert f"stopped at {update}" in output and checkpoints(tmp_path / "run") == [f"checkpoint-{update}"]


class Interrupt(TrainerCallback):
    """Ctrl-C in the middle of an update, once or several times."""

    def __init__(self, update, times=1):
        self.update, self.times = update, times

    def on_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.update:
            for _ in range(self.times):
                self.times -= 1
                signal.raise_signal(signal.SIGINT)


def test_ctrl_c_ends_the_update_saves_and_is_passed_on(tmp_path, capsys, caplog):
    trainer = make_trainer(tmp_path / "a", make_team(2), callbacks=[Interrupt(3)], **SETTINGS)
    with pytest.raises(KeyboardInterrupt, match="Stopped by Ctrl-C after update 3, and saved"):
        trainer.train()
    assert "Ctrl-C again aborts at once" in capsys.readouterr().out and "Preempted by Ctrl-C" in caplog.text
    assert trainer.preemption.stopped_at == 3 and checkpoints(tmp_path / "a") == ["checkpoint-3"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = make_trainer(tmp_path / "a", make_team(2, seed=9), **SETTINGS)
    resumed.train(resume_from_checkpoint=True)
    whole = make_trainer(tmp_path / "b", make_team(2), **SETTINGS)
    whole.train()
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(whole), strict=True))


def test_a_second_ctrl_c_aborts_at_once_and_what_is_on_disk_is_whole(tmp_path):
    saving = SETTINGS | {"save_strategy": "steps", "save_steps": 2}
    trainer = make_trainer(tmp_path, make_team(2), callbacks=[Interrupt(5, times=2)], **saving)
    with pytest.raises(KeyboardInterrupt, match="Aborted in the middle of an update"):
        trainer.train()
    assert trainer.state.global_step == 4 and checkpoints(tmp_path) == ["checkpoint-2", "checkpoint-4"]
    for name in checkpoints(tmp_path):
        verify(str(tmp_path / name), trainer.accelerator)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_in_the_last_update_ends_a_run_that_is_complete(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), callbacks=[Interrupt(8)], **SETTINGS)
    assert trainer.train().global_step == 8 and trainer.preemption.stopped_at is None


def test_a_handler_of_the_user_is_left_alone(tmp_path):
    heard = []
    before = signal.signal(signal.SIGINT, lambda *signalled: heard.append(signalled))
    try:
        trainer = make_trainer(tmp_path, make_team(2), callbacks=[Interrupt(2)], **SETTINGS)
        assert trainer.train().global_step == 8 and len(heard) == 1
    finally:
        signal.signal(signal.SIGINT, before)
