"""`trl-teamtr serve`: a process that is started, used, and ended."""

import os
import signal
import socket
import subprocess
import sys
import time

import openai
import pytest
import uvicorn
from served import make_chat_team

from trl_teamtr.cli.main import main


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("team"))
    make_chat_team().save_pretrained(folder)
    return folder


def test_a_server_is_started_used_and_ended(saved):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "trl_teamtr",
        "serve",
        saved,
        "--port",
        str(port),
        "--name",
        "pair",
    ]
    environment = os.environ | {"TEAMTR_API_KEY": "the key"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        lines = iter(process.stdout.readline, "")  # a logger of `trl` may say something before
        assert f"x, y at http://127.0.0.1:{port}/\n" in lines
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="the key", max_retries=9) as client:
            for _ in range(300):
                try:
                    models = [model.id for model in client.models.list()]
                    break
                except openai.APIConnectionError:
                    time.sleep(0.1)
            answer = client.chat.completions.create(model="pair", messages=[{"role": "user", "content": "au"}], seed=1)
        assert models == ["pair", "pair/x", "pair/y"] and len(answer.teamtr["transcript"]) == 2
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) in (0, -signal.SIGINT)
    finally:
        process.kill()
        process.stdout.close()


def test_limits_and_the_key_reach_the_server(saved, monkeypatch, capsys):
    made = {}
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: made.update(app=app, **options))
    monkeypatch.setattr("trl_teamtr.serving.app.make_app", lambda team, settings, host: (settings, host))
    monkeypatch.delenv("TEAMTR_API_KEY", raising=False)
    assert main(["serve", saved, "--host", "0.0.0.0", "--max-talks", "3", "--timeout", "9"]) == 0
    settings, host = made["app"]
    assert (settings.max_talks, settings.timeout, settings.api_key, host) == (3, 9.0, None, "0.0.0.0")
    assert (made["host"], made["port"]) == ("0.0.0.0", 8000)
    assert "Everyone who reaches 0.0.0.0:8000 can use the team" in capsys.readouterr().out
    assert main(["serve", saved, "--api-key", "k"]) == 0
    assert made["app"][0].api_key == "k" and made["host"] == "127.0.0.1"
    with pytest.raises(SystemExit, match="error: `max_talks` must be positive"):
        main(["serve", saved, "--max-talks", "0"])


def test_what_is_not_installed_is_named(saved, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "fastapi" else name)
    with pytest.raises(SystemExit, match=r"error: fastapi must be installed: pip install 'trl-teamtr\[serve\]'"):
        main(["serve", saved])
