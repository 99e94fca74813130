from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from transformers.trainer_utils import HubStrategy

from trl_teamtr.runs import hub


@pytest.fixture
def uploads(monkeypatch):
    calls = []

    def upload_folder(**kwargs):
        calls.append(kwargs)
        return Future()

    monkeypatch.setattr(hub, "upload_folder", upload_folder)
    return calls


def make_trainer(strategy, main=True, always=False):
    args = SimpleNamespace(
        hub_strategy=HubStrategy(strategy),
        hub_always_push=always,
        output_dir="run",
        hub_token="the token",
        hub_revision=None,
    )
    return SimpleNamespace(
        args=args,
        hub_model_id="me/team",
        push_in_progress=None,
        state=SimpleNamespace(global_step=4),
        control=None,
        callback_handler=SimpleNamespace(on_push_begin=lambda *args: None),
        is_world_process_zero=lambda: main,
    )


@pytest.mark.parametrize(
    "strategy, targets",
    [
        ("end", []),
        ("every_save", [None]),
        ("checkpoint", [None, "last-checkpoint"]),
        ("all_checkpoints", [None, "checkpoint-4"]),
    ],
)
def test_what_is_pushed_follows_the_strategy(uploads, strategy, targets):
    hub.push(make_trainer(strategy), "run/checkpoint-4")
    assert [upload["path_in_repo"] for upload in uploads] == targets
    assert all(upload["token"] == "the token" and upload["run_as_future"] for upload in uploads)
    assert not uploads or uploads[0]["ignore_patterns"] == ["_*", "checkpoint-*", "tmp-*", ".vllm/*"]


def test_only_the_main_process_pushes(uploads):
    hub.push(make_trainer("every_save", main=False), "run/checkpoint-4")
    assert uploads == []


@pytest.mark.parametrize("always, number", [(False, 1), (True, 2)])
def test_push_that_is_not_done_yet_is_waited_for_unless_always(uploads, always, number):
    trainer = make_trainer("every_save", always=always)
    hub.push(trainer, "run/checkpoint-4")
    hub.push(trainer, "run/checkpoint-4")
    assert len(uploads) == len(trainer.push_in_progress.jobs) == number
