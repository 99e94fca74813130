"""The command that starts the server of a team's YAML file is the one that its trainer would name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from real_vllm import PEFT, write_team
from tiny import make_config
from vllm_teams import in_process, lora_team, save_base, speakers_of

from trl_teamtr import Agent
from trl_teamtr.cli.vllm_command import find_command, find_start, main
from trl_teamtr.policy.generation.server_checks import start_for


SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "serve_vllm.sh"


def test_it_is_found_without_weights_and_is_that_of_the_agents(tmp_path):
    base = save_base(tmp_path / "base")
    args = make_config(tmp_path / "run")
    saved = speakers_of(lora_team(base, "z"))[0].policy.model
    saved.save_pretrained(tmp_path / "z")
    for agents in (lora_team(base, "xy"), [Agent("w", base)], [Agent("f", base, trainable=False), *lora_team(base)]):
        assert find_start(agents, args) == start_for(speakers_of(agents))
    assert find_start([Agent("z", str(tmp_path / "z"))], args) == start_for(speakers_of(lora_team(base, "z")))
    half = make_config(tmp_path / "run", max_context_length=64, bf16=True)
    start = find_start(lora_team(base), half)
    assert (start.dtype, start.max_length) == ("bfloat16", 64)
    speaking = make_config(tmp_path / "run", bf16=True, speaking_precision="float16")
    assert find_start(lora_team(base), speaking).dtype == "float16"
    with pytest.raises(ValueError, match="'x', 'w' share a server, but have the models .*vllm_server_base_url"):
        find_start([*lora_team(base, "x"), Agent("w", save_base(tmp_path / "other"))], args)


def test_each_server_has_its_agents_and_its_address(tmp_path):
    base = save_base(tmp_path / "base")
    agents = [*lora_team(base, "xy"), Agent("w", base, vllm_server_base_url="http://10.0.0.2:8001/")]
    args = make_config(tmp_path / "run", vllm_server_port=8100)
    first = find_command(agents, args, None, "vllm serve")
    assert first[:4] == ["VLLM_SERVER_DEV_MODE=1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1", "vllm", "serve"]
    assert first[first.index("--max-loras") + 1] == "3" and first[-4:] == ["--host", "0.0.0.0", "--port", "8100"]
    second = find_command(agents, args, "http://10.0.0.2:8001", "python -m server --model")
    assert second[:6] == ["VLLM_SERVER_DEV_MODE=1", "python", "-m", "server", "--model", base]
    assert "--enable-lora" not in second and second[-4:] == ["--host", "10.0.0.2", "--port", "8001"]
    with pytest.raises(
        ValueError, match="speaks through http://a. The team's servers are http://0.0.0.0:8100, http://10"
    ):
        find_command(agents, args, "http://a", "vllm serve")


def test_the_script_starts_what_the_command_says(tmp_path):
    base = save_base(tmp_path / "base")
    team = write_team(tmp_path / "team.yaml", [{"name": "x", "model": base, "peft": PEFT}], "http://127.0.0.1:8123")
    env = os.environ | {"PYTHON": sys.executable, "SERVE": f"{sys.executable} -c 'import sys; print(sys.argv[1:])'"}
    command = ["bash", str(SCRIPT), str(team), "http://127.0.0.1:8123", "--enforce-eager"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()[-1]
    assert words.startswith(f"['{base}', '--logprobs-mode'") and words.endswith("'--port', '8123', '--enforce-eager']")
    command[3] = "http://127.0.0.1:1"
    failed = subprocess.run(command, env=env, capture_output=True, text=True)
    assert failed.returncode != 0 and "The team's servers are http://127.0.0.1:8123" in failed.stderr


def test_a_team_on_engines_in_its_process_needs_no_server(tmp_path):
    with pytest.raises(ValueError, match="needs no server. Set `vllm_mode: server`"):
        main(None, make_config(tmp_path / "run", **in_process()), None)
