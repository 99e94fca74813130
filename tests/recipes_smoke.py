"""
Builds the trainer of every recipe from tiny models of the same architecture, with fake vLLM servers, and runs a stage; runs every
evaluation on tiny files. Prints a line for each.

    make recipes-smoke                                   # all, some minutes
    python -W ignore tests/recipes_smoke.py scaling      # those whose path contains the word
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


os.environ["CI"] = "1"  # no telemetry
os.environ["HF_HUB_OFFLINE"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
import yaml  # noqa: E402
from fake_vllm import serving  # noqa: E402
from tiny import make_model, make_tokenizer  # noqa: E402

from trl_teamtr.cli import evaluate, train  # noqa: E402
from trl_teamtr.policy.generation.client import ServerClient  # noqa: E402


RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
TEMPLATE = "{% for m in messages %}{{ m['content'] }}.{% endfor %}"
# Sizes that a CPU has room for; what is not named here is the recipe's own
TINY_RUN: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "steps_per_generation": 1,
    "num_generations": 4,
    "max_completion_length": 2,
    "max_context_length": 512,
    "learning_rate": 1e-2,
    "num_stages": 1,
    "eval_size": 2,
    "save_strategy": "no",
    "report": False,
    # Beside the task's scorer, which no tiny model satisfies: one whose rewards differ
    "reward_funcs": ["math500", "tiny.answer_reward"],
}
# How the servers are started: what scripts/serve_vllm.sh finds in a recipe for them
SERVER = {"model_config": {"max_model_len": 512}, "lora_config": {"max_lora_rank": 32, "max_loras": 9}}


def name_of(recipe: Path) -> str:
    return recipe.relative_to(ROOT / "recipes").with_suffix("").as_posix()


def save_model(folder: Path, model: str) -> str:
    """A tiny model of the architecture of `model`, whose weights depend on its size, with a tokenizer."""
    path = folder / model.replace("/", "_")
    if not path.exists():
        seed = sum(map(ord, model))
        make_model(seed=seed, max_position_embeddings=1024, initializer_range=0.1).save_pretrained(path)
        tokenizer = make_tokenizer()
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(path)
    return str(path)


def write_rows(folder: Path) -> dict[str, str]:
    """A file for each task that the recipes name, with the published columns."""
    text = [{"problem": letters, "answer": "1"} for letters in ("a", "aa", "u", "ua", "au", "uu", "aau", "auu")]
    statement = "[STATEMENT]\nAs initial conditions I have that, the red block is clear, the red block is on the table and the hand is empty.\n"
    rows = dict.fromkeys(("aime24", "aime25", "math500"), text)
    rows |= {
        "zebralogic": [{"puzzle": "a", "solution": {"header": ["House", "Name"], "rows": [["1", "Ann"]]}}],
        "autologi": [
            {
                "prompt": "a",
                "code": {
                    "Inputs_Check_code": "def inputs_check(i): return True",
                    "Constraint_List_code": "constraint_list = []",
                },
            }
        ],
        "planbench": [
            {"domain": "blocksworld", "query": f"{statement}My goal is to have that the red block is clear.\n\n[PLAN]"}
        ],
    }
    paths = {}
    for task, own in rows.items():
        paths[task] = str(folder / f"{task}.jsonl")
        Path(paths[task]).write_text("".join(json.dumps(row) + "\n" for row in own))
    return paths


@contextlib.contextmanager
def fake_servers(settings: dict[str, Any]):
    """The settings of a recipe with fake servers in place of those that it names, one for each address."""
    members = settings.get("agents") or [settings]
    with contextlib.ExitStack() as stack:
        servers: dict[str, str] = {}
        for member in members:
            address = member["vllm_server_base_url"]
            model = member.get("model") or member["model_name_or_path"]
            if address not in servers:
                servers[address] = stack.enter_context(serving(model, config=SERVER)).url
            member["vllm_server_base_url"] = servers[address]
        yield len(servers)


def run_training(recipe: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Train one stage of a recipe. Returns what there is to say of it, and the trainer."""
    settings = yaml.safe_load(recipe.read_text())
    paths = write_rows(folder)
    for member in settings.get("agents", []):
        member["model"] = save_model(folder, member["model"])
    if "model_name_or_path" in settings:
        settings["model_name_or_path"] = save_model(folder, settings["model_name_or_path"])
    own = TINY_RUN | {"output_dir": str(folder / "run"), "dataset_path": paths[settings["dataset_name"]]}
    settings |= own | {"eval_dataset_path": paths[settings["eval_dataset_name"]]} | changes
    with fake_servers(settings) as num_servers:
        (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
        parsed = train.make_parser().parse_args_and_config(["--config", str(folder / "recipe.yaml")])
        trainer = train.make_trainer(*parsed)
        before = [
            {name: p.detach().clone() for name, p in member.model.named_parameters()} for member in trainer.members
        ]
        trainer.train()
        trainer.save_model(str(folder / "team"))
        moved = [
            any(not torch.equal(old[name], p) for name, p in member.model.named_parameters())
            for old, member in zip(before, trainer.members, strict=True)
        ]
    updates = [log for log in trainer.state.log_history if any(key.endswith("/kl") and "agent/" in key for key in log)]
    found = {"members": len(trainer.members), "servers": num_servers, "updates": len(updates), "changed": sum(moved)}
    return found | {"trainer": trainer}


def run_evaluation(recipe: Path, folder: Path, num_samples: int = 2) -> dict[str, Any]:
    """Run the evaluation of a recipe, with a team that the training beside it has saved. Returns its JSON file."""
    team = folder / "team"
    if not team.exists():
        run_training(recipe.with_name("lora.yaml"), folder)
    settings = yaml.safe_load(recipe.read_text())
    for member in settings["agents"]:
        member["model"] = save_model(folder, member["model"])
    settings |= {key: TINY_RUN[key] for key in ("use_cpu", "bf16", "disable_tqdm", "per_device_eval_batch_size")}
    settings |= {
        "max_completion_length": 2,
        "max_context_length": 512,
        "num_samples": num_samples,
        "k": [1, num_samples],
    }
    settings |= {"output_dir": str(folder / "out"), "output": str(folder / "results.json"), "team": str(team)}
    paths = write_rows(folder)
    settings["task_paths"] = {task: paths[task] for task in settings["tasks"]}
    settings["debate_prompt"] = settings["judge_prompt"] = "a"
    (folder / "evaluate.yaml").write_text(yaml.safe_dump(settings))
    evaluate.main(*evaluate.parse(["--config", str(folder / "evaluate.yaml")]))
    return json.loads((folder / "results.json").read_text())


def run(recipe: Path, folder: Path) -> str:
    """What a recipe did, in words."""
    if recipe.stem == "evaluate":
        found = run_evaluation(recipe, folder)["tasks"]
        protocols = next(iter(found.values()))["protocols"]
        return f"{len(found)} tasks x {len(protocols)} protocols"
    found = run_training(recipe, folder)
    return "{members} agents, {servers} server(s), {updates} updates, {changed} agents changed".format(**found)


def main(words: list[str]):
    ServerClient.poll_interval = 0.05
    torch.set_num_threads(1)
    lines = []
    for recipe in RECIPES:
        if words and not any(word in name_of(recipe) for word in words):
            continue
        began = time.time()
        with tempfile.TemporaryDirectory() as folder:
            told = run(recipe, Path(folder))
        lines.append(f"{name_of(recipe):32}  {told:62}  {time.time() - began:5.1f} s")
        print(lines[-1], flush=True)
    print("\n" + "\n".join([f"{'recipe':32}  {'with tiny models and fake servers':62}  seconds", *lines]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="run the recipes whose path contains one of these")
    main(parser.parse_args().words)
