"""The README's code and commands."""

import ast
import re
from pathlib import Path

import datasets
import pytest
import torch
from tiny import make_model, make_tokenizer

import trl_teamtr


ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_example_of_the_readme_runs(tmp_path, monkeypatch):
    """As printed, but for the two models, the dataset and the sizes, which stand for those of the hub."""
    monkeypatch.chdir(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}.{% endfor %}"
    for i, name in enumerate(("Qwen3-1.7B", "Qwen3-8B")):
        make_model(seed=i).save_pretrained(tmp_path / "Qwen" / name)
        tokenizer.save_pretrained(tmp_path / "Qwen" / name)
    rows = [{"prompt": [{"role": "user", "content": "ua" * n}], "solution": str(n)} for n in range(1, 9)]
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: datasets.Dataset.from_list(rows))

    small = {"num_stages": 1, "max_completion_length": 2, "use_cpu": True, "bf16": False, "report_to": "none"}
    config = trl_teamtr.TeamTRConfig
    monkeypatch.setattr(trl_teamtr, "TeamTRConfig", lambda **fields: config(**fields | small))
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    namespace = {}
    exec(example, namespace)
    trainer = namespace["trainer"]
    assert trainer.state.global_step == 2 and trainer.radius == 0.01
    assert trainer.members[1].args.learning_rate == 1e-6
    assert (tmp_path / "run" / "team.json").is_file()
    loaded = trl_teamtr.load_team("run")
    assert [agent.name for agent in loaded] == ["planner", "solver"]
    assert torch.is_tensor(next(trainer.model.parameters()))


def test_team_file_of_the_readme_is_a_team(tmp_path):
    from trl_teamtr.cli import arguments, train

    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "my_team.yaml").write_text(example)
    command = ["--config", str(tmp_path / "my_team.yaml"), "--use_cpu", "true", "--bf16", "false"]
    script_args, args, _ = train.make_parser().parse_args_and_config(command)
    planner, solver = arguments.make_agents(script_args.agents, args)
    assert planner.system_prompt == "You plan." and planner.peft_config is None
    assert solver.learning_rate == 1e-6 and solver.peft_config.r == 16
    assert args.num_stages == 40 and script_args.reward_funcs == ["accuracy_reward"]


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_links_of_the_readme_lead_somewhere(target):
    assert target.startswith("https://") or (ROOT / target).is_file()


@pytest.mark.parametrize("page, least", [("reliability.md", 20), ("vllm.md", 5)])
def test_tests_that_the_docs_name_exist(page, least):
    text, path = (ROOT / "docs" / page).read_text(), ""
    named = re.findall(r"`(tests/\w[\w/]*\.py)?::(\w+)`", text)
    assert len(named) > least
    for other, name in named:
        path = other or path
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"


@pytest.mark.parametrize("command", sorted(set(re.findall(r"make ([a-z]+)", README)) - {"sure"}))
def test_make_targets_of_the_readme_exist(command):
    assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_algorithm_is_one_function_of_at_most_sixty_lines():
    import inspect

    source = inspect.getsource(trl_teamtr.TeamTRTrainer._run_stage)
    assert source.count("\n") <= 60 and "resampler.rollouts" in source and "agent.update" in source


def test_package_stays_small():
    for path in (*(ROOT / "trl_teamtr").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")):
        source = path.read_text()
        assert source.count("\n") <= 400, f"{path} has more than 400 lines"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"


def test_figures_of_the_reproduction_are_printed_by_its_studies():
    results = ROOT / "docs" / "results"
    studies = [*(results / "reproduction").glob("*.txt"), results / "gradient_variance.txt"]
    outputs = "".join(path.read_text() for path in studies)
    printed = set(re.findall(r"\d+\.\d+", outputs))
    figures = re.findall(r"(?<![\w.-])\d\.\d{3,}", (ROOT / "docs" / "reproduction.md").read_text())
    claims = README.partition("## What is measured")[2].partition("\n## ")[0]
    figures += re.findall(r"\d\.\d{2,}", claims)
    assert len(figures) > 100 and claims.count("\n| ") == 6
    # The radius of the paper's ablation is its own
    assert set(figures) - printed - {"0.001"} == set()
