"""
Plans the memory of every recipe's training, without a GPU: from the shapes of Qwen3, of which no weights are needed.

    python benchmarks/plan_recipes.py > docs/results/plan_recipes.txt    # some minutes
    python benchmarks/plan_recipes.py --smoke                            # small shapes, seconds: says only that it runs

The launch of a recipe is in its first lines: the config file of accelerate, the number of processes, and the GPUs of the servers.
A plan knows no servers, so it is made without them; its phase of rollouts is left out, since it is generation, which the servers
do. Prints a table, and one JSON object last: GiB of a GPU that the largest other phase takes, and whether it fits into 80 GiB.
"""

import argparse
import json
import os
import re
import tempfile
from pathlib import Path


os.environ["CI"] = "1"  # no telemetry
ROOT = Path(__file__).resolve().parents[1]
GPU_GIB = 80

# Those of Qwen3
SHAPES = {
    "1.7B": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
    "8B": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
    "14B": {"hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 40, "num_attention_heads": 40},
    "32B": {"hidden_size": 5120, "intermediate_size": 25600, "num_hidden_layers": 64, "num_attention_heads": 64},
}
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 512,
}


def save_config(folder: str, model: str, smoke: bool) -> str:
    """A folder with the config of `Qwen/Qwen3-<size>`."""
    from transformers import Qwen3Config

    size = model.rpartition("-")[2]
    common = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960}
    common |= {"tie_word_embeddings": size == "1.7B", "architectures": ["Qwen3ForCausalLM"]}
    small = {**SMALL, "num_key_value_heads": 2, "head_dim": 16} if smoke else {}
    path = os.path.join(folder, size)
    Qwen3Config(**common | SHAPES[size] | small).save_pretrained(path)
    return path


def read_launch(text: str) -> tuple[str, int, int]:
    """Of a recipe's first lines: the config file of accelerate, the processes, and the GPUs of the servers."""
    config, processes = re.search(r"--config_file (\S+) --num_processes (\d+)", text).groups()
    served = re.findall(r"CUDA_VISIBLE_DEVICES=([\d,]+) bash scripts/serve_vllm.sh", text)
    return config, int(processes), sum(len(ids.split(",")) for ids in served)


def make_plan(recipe: Path, folder: str, smoke: bool):
    """The plan of a recipe, and the GPUs of its training and of its servers."""
    import yaml

    from trl_teamtr.cli import train
    from trl_teamtr.planning.launches import Launch

    text = recipe.read_text()
    config, processes, served = read_launch(text)
    settings = yaml.safe_load(text)
    for member in settings.get("agents", [settings]):
        key = "model" if "model" in member else "model_name_or_path"
        member[key] = save_config(folder, member[key], smoke)
        member.pop("vllm_server_base_url", None)
    settings |= {"use_vllm": False, "use_cpu": True, "output_dir": folder}
    settings |= {} if recipe.stem == "full" else {"dtype": "bfloat16"}
    path = os.path.join(folder, "recipe.yaml")
    Path(path).write_text(yaml.safe_dump(settings))
    script_args, args, model_args = train.make_parser().parse_args_and_config(["--config", path])
    found = train.plan_of(
        script_args, args, model_args, launch=Launch.read(str(ROOT / config), processes), device_memory_gib=GPU_GIB
    )
    return found, processes, served


def main(options):
    plans = {}
    print(
        f"{'recipe':26}  {'servers':>7}  {'training':>8}  launch         largest phase  GiB of a GPU  fits in {GPU_GIB}"
    )
    for recipe in sorted((ROOT / "recipes").rglob("*.yaml")):
        if recipe.stem == "evaluate":
            continue
        name = recipe.relative_to(ROOT / "recipes").with_suffix("").as_posix()
        with tempfile.TemporaryDirectory() as folder:
            found, processes, served = make_plan(recipe, folder, options.smoke)
        peak = max((phase for phase in found.phases if phase.name != "rollouts"), key=lambda phase: phase.device)
        gib = round(peak.device / 2**30, 1)
        launch = Path(read_launch(recipe.read_text())[0]).stem
        print(
            f"{name:26}  {served:7}  {processes:8}  {launch:13}  {peak.name:13}  {gib:12}  {gib <= GPU_GIB}",
            flush=True,
        )
        plans[name] = {"server_gpus": served, "training_gpus": processes, "gib": gib, "fits": gib <= GPU_GIB}
    print(json.dumps({"size": "smoke" if options.smoke else "full", "plans": plans}))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small shapes: says only that it runs")
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
