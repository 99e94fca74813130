"""A launch that contradicts the config, or that would wait for a build that nobody makes, is refused."""

import os
import time
from types import SimpleNamespace

import pytest
import torch.utils.cpp_extension as cpp_extension
from tiny import make_config
from torch.utils.file_baton import FileBaton

from trl_teamtr.options import launch
from trl_teamtr.options.launch import offloads_optimizer, refuse_abandoned_build


@pytest.mark.parametrize("engine", ["plain", "deepspeed"])
@pytest.mark.parametrize("asked", ["bf16", "fp16"])
def test_precision_of_the_launch_that_the_config_turns_off(monkeypatch, asked, engine, tmp_path):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    fields = {} if engine == "plain" else {"deepspeed": {"zero_optimization": {"stage": 2}}}
    with pytest.raises(ValueError, match=f"{asked}.*Set `{asked}: true`, or launch with `--mixed_precision no`"):
        make_config(tmp_path, bf16=False, **fields)


@pytest.mark.parametrize("asked, fields", [("bf16", {"bf16": True}), ("no", {"bf16": False}), ("no", {"bf16": True})])
def test_precisions_that_agree(monkeypatch, asked, fields, tmp_path):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    assert make_config(tmp_path, **fields).bf16 == fields["bf16"]


@pytest.fixture
def lock(monkeypatch, tmp_path):
    """Where a process that compiles `cpu_adam` holds its lock."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    folder = tmp_path / "cpu_adam"
    folder.mkdir()
    return folder / "lock"


def test_lock_is_where_pytorch_makes_it(monkeypatch, lock):
    class Caught(Exception):
        pass

    def catch(path):
        raise Caught(path)

    monkeypatch.setattr(cpp_extension, "FileBaton", catch)
    (source := lock.with_name("source.cpp")).write_text("")
    with pytest.raises(Caught, match=str(lock)):
        cpp_extension.load("cpu_adam", [str(source)])


def make_lock(lock, age):
    baton = FileBaton(str(lock))
    assert baton.try_acquire()
    os.utime(lock, (time.time() - age,) * 2)
    return baton


def test_abandoned_build_is_named(lock):
    make_lock(lock, age=10**6)
    with pytest.raises(RuntimeError, match=f"'cpu_adam' has been locked.*{lock}.*Delete it"):
        refuse_abandoned_build("cpu_adam", patience=0.2)
    refuse_abandoned_build("fused_adam", patience=0.2)  # another operator's lock is of no account


def test_build_of_another_launch_is_waited_for(monkeypatch, lock):
    baton = make_lock(lock, age=10**6)
    monkeypatch.setattr(launch.time, "sleep", lambda seconds: baton.release())
    refuse_abandoned_build("cpu_adam")
    assert not lock.exists()


def test_build_of_this_launch_is_left_to_pytorch(lock):
    make_lock(lock, age=0)
    refuse_abandoned_build("cpu_adam", patience=0.0)


@pytest.mark.parametrize("config, expected", [
    ({"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}}, True),
    ({"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "none"}}}, False),
    ({"zero_optimization": {"stage": 2}}, False),
])  # fmt: skip
def test_operator_of_the_cpu_is_needed_where_moments_are_offloaded(config, expected):
    args = SimpleNamespace(deepspeed_plugin=SimpleNamespace(deepspeed_config=config))
    assert offloads_optimizer(args) is expected
    assert not offloads_optimizer(SimpleNamespace(deepspeed_plugin=None))


def test_config_looks_for_builds_before_the_devices(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("trl_teamtr.teamtr_config.refuse_abandoned_build", asked.append)
    make_config(tmp_path)
    assert asked == []
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr("trl.GRPOConfig.__post_init__", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_config(tmp_path)
    assert asked == ["deepspeed_shm_comm"]
