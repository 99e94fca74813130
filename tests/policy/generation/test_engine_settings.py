"""The settings of engines are the fields of the config."""

from tiny import make_config
from vllm_teams import in_process

from trl_teamtr.policy.generation.engine_settings import EngineSettings, find_sync_dir


def test_they_are_those_of_the_config(tmp_path):
    fields = {"vllm_max_model_length": 64, "vllm_model_impl": "transformers", "vllm_gpu_memory_utilization": 0.4}
    rows = {"per_device_train_batch_size": 4, "steps_per_generation": 3, "per_device_eval_batch_size": 8}
    args = make_config(tmp_path / "run", **in_process(model_init_kwargs={"revision": "main"}, **fields, **rows))
    found = EngineSettings.of(args)
    assert found == EngineSettings(
        0.4, 64, 12, False, "transformers", str(tmp_path / "run" / ".vllm"), 1e-4, "main", False
    )
    few = make_config(tmp_path / "run", **in_process(per_device_eval_batch_size=40, per_device_train_batch_size=4))
    assert EngineSettings.of(few).rows == 40


def test_the_folder_of_adapters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_sync_dir(make_config("run")) == str(tmp_path / "run" / ".vllm")
    assert find_sync_dir(make_config("run", vllm_sync_dir="there")) == str(tmp_path / "there")
