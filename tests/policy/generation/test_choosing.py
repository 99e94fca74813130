"""`vllm_mode` decides where a team has its vLLM."""

from fake_engine import fake_engines
from fake_vllm import serving
from tiny import make_config
from vllm_teams import in_process, lora_team, on_server, save_base, speakers_of

from trl_teamtr.policy.generation import Fleet, make_fleet
from trl_teamtr.policy.generation.engine_fleet import EngineFleet


def test_servers_or_engines(tmp_path, monkeypatch):
    base = save_base(tmp_path / "base")
    with serving(base) as server:
        args = make_config("x", **on_server(server.url))
        assert isinstance(make_fleet(speakers_of(lora_team(base)), args), Fleet)
    engines, args = fake_engines(monkeypatch), make_config("x", **in_process(vllm_gpu_memory_utilization=0.6))
    fleet = make_fleet(speakers_of(lora_team(base)), args)
    assert isinstance(fleet, EngineFleet) and engines.made[0].arguments["gpu_memory_utilization"] == 0.6
