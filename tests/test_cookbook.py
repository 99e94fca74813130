"""Every block of the cookbook runs as it is printed, but for the model and the sizes, which stand for those of the hub."""

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from tiny import make_model, make_tokenizer

import trl_teamtr
from trl_teamtr.cli.main import main


ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cookbook.md").read_text()

SMALL = {"num_stages": 1, "max_completion_length": 4, "use_cpu": True, "bf16": False, "report_to": "none"}
SMALL |= {"per_device_train_batch_size": 8, "num_generations": 4, "eval_steps": 1}
SMALL |= {"per_device_eval_batch_size": 64, "num_generations_eval": 1, "disable_tqdm": True}

# Recipes that start processes: conftest.py makes them nightly
PROCESSES = ("Serve a team", "A sweep over three seeds")


def read_blocks() -> list[tuple[str, str, str]]:
    """The heading, the language and the text of each block, in order."""
    found = []
    for section in PAGE.split("\n## ")[1:]:
        heading = section.partition("\n")[0]
        found += [
            (heading, *block) for block in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
        ]
    return found


BLOCKS = read_blocks()


class Kitchen:
    """A folder in which the blocks are run, each at most once, after those before it."""

    def __init__(self, folder: Path):
        self.folder, self.done, self.servers = folder, set[int](), list[subprocess.Popen]()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        tokenizer = make_tokenizer()
        tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}.{% endfor %}"
        for part in (make_model(max_position_embeddings=1024), tokenizer):
            part.save_pretrained(folder / "Qwen" / "Qwen3-0.6B")
        # The console script, of this source tree
        (folder / "bin").mkdir()
        (folder / "bin" / "trl-teamtr").write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -W ignore -m trl_teamtr "$@"\n'
        )
        (folder / "bin" / "trl-teamtr").chmod(0o755)
        path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
        self.environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def run(self, number: int):
        heading = BLOCKS[number][0]
        for before in range(number):
            if BLOCKS[before][0] == heading or BLOCKS[before][0] not in PROCESSES:
                self._run(before)
        self._run(number)

    def _run(self, number: int):
        if number in self.done:
            return
        self.done.add(number)
        _, language, text = BLOCKS[number]
        text = text.replace("8000", self.port)
        name = re.match(r"# (\w+\.(?:py|yaml))\n", text)
        if name is not None:
            more = "".join(f"{key}: {value}\n" for key, value in SMALL.items() if f"{key}:" not in text)
            small = re.sub(r"num_stages: \d+", "num_stages: 1", text) + more
            (self.folder / name[1]).write_text(small if language == "yaml" else text)
        elif language == "python":
            exec(compile(text, f"block {number} of docs/cookbook.md", "exec"), {"__name__": "block"})
        else:
            assert language == "bash"
            self._command(text)

    def _command(self, text: str):
        lines = [shlex.split(line) for line in text.splitlines()]
        if lines[0][:2] == ["trl-teamtr", "serve"]:
            self._serve(lines[0])
        elif all(line[0] == "trl-teamtr" for line in lines):
            for line in lines:
                assert main(line[1:]) == 0
        else:
            done = subprocess.run(
                ["bash", "-euc", text], env=self.environment, capture_output=True, text=True, timeout=600
            )
            assert done.returncode == 0, done.stderr

    def _serve(self, command: list[str]):
        server = subprocess.Popen([self.folder / "bin" / command[0], *command[1:]], env=self.environment)
        self.servers.append(server)
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health"):
                return
            assert server.poll() is None, "the server has not started"
            time.sleep(0.1)
        raise TimeoutError("the server does not answer")


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("kitchen"), trl_teamtr.TeamTRConfig
    kitchen = Kitchen(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.syspath_prepend(str(folder))
        patched.setattr(trl_teamtr, "TeamTRConfig", lambda **fields: config(**fields | SMALL))
        yield kitchen
    for server in kitchen.servers:
        server.kill()
        server.wait()
    for name in ("words", "routers"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "number", range(len(BLOCKS)), ids=[f"{i} {heading}" for i, (heading, *_) in enumerate(BLOCKS)]
)
def test_block_runs(kitchen, number, capsys):
    kitchen.run(number)
    _, language, text = BLOCKS[number]
    for folder in re.findall(r'output_dir="(.*?)"', text):
        assert (kitchen.folder / folder / "team.json").is_file()
    if "chat runs/words" in text:
        assert capsys.readouterr().out.startswith("writer: ")
    if "trl-teamtr export" in text:
        assert (kitchen.folder / "runs" / "merged" / "writer" / "model.safetensors").is_file()
        assert (kitchen.folder / "runs" / "whole" / "bases").is_dir()
    if "trl-teamtr replace" in text:
        assert (kitchen.folder / "runs" / "replaced" / "replacements.jsonl").is_file()
        assert "swap shock" in capsys.readouterr().out
    if "add_member" in text:
        assert trl_teamtr.Team.from_pretrained("runs/of_three").names == ("writer", "editor", "judge")
    if "savefig" in text:
        assert (kitchen.folder / "runs" / "sweep.png").stat().st_size > 10_000


def test_the_recipes_are_those_that_one_looks_for():
    headings = " | ".join(re.findall(r"^## (.*)$", PAGE, re.MULTILINE))
    for topic in (
        "task of one's own",
        "router of one's own",
        "Private",
        "Freeze",
        "Replace",
        "Serve",
        "Export",
        "vLLM",
        "three seeds",
    ):
        assert topic in headings
    assert len(BLOCKS) >= 15 and set(PROCESSES) <= {heading for heading, *_ in BLOCKS}
