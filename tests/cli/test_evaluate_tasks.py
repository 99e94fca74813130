"""`trl-teamtr evaluate --tasks`: several benchmarks, and what an interrupted evaluation goes on from."""

import dataclasses
import json
from pathlib import Path

import datasets
import pytest
import tool_teams
from tiny import make_model, make_team, make_trainer

from trl_teamtr.cli import evaluate, evaluate_tasks
from trl_teamtr.cli.arguments import TASKS_FILE
from trl_teamtr.tasks.catalogue import BENCHMARKS


ON_CPU = ["--use_cpu", "true", "--bf16", "false", "--disable_tqdm", "true", "--max_completion_length", "2"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    team = make_team(2)
    team[0].processing_class.chat_template = "{% for m in messages %}{{ m['content'] }}.{% endfor %}"
    make_trainer(folder / "team", team).save_model()
    make_model(seed=7).save_pretrained(folder / "model")
    team[0].processing_class.save_pretrained(folder / "model")
    return folder


@pytest.fixture(autouse=True)
def rows(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    for name in ("aime24", "math500"):
        lines = [json.dumps({"problem": f"a{n}", "answer": str(n)}) for n in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))


PATHS = json.dumps({"aime24": "aime24.jsonl", "math500": "math500.jsonl"})


def run(saved, *arguments, tasks=("aime24", "math500"), paths=PATHS, output="results/out.json"):
    line = ["--team", str(saved / "team"), "--tasks", *tasks, "--task_paths", paths, "--output", output]
    evaluate.main(*evaluate.parse([*line, *map(str, arguments), *ON_CPU]))
    return json.loads(Path(output).read_text())


def test_one_table_and_one_file(saved, capsys):
    found = run(saved, "--protocols", "team", "single", "--num_samples", 2, "--k", 1, 2)
    assert list(found["tasks"]) == ["aime24", "math500"] and found["num_samples"] == 2
    for task, result in found["tasks"].items():
        assert result["rows"] == 3 and result["rewards"] == [task] and list(result["protocols"]) == ["team", "single"]
        assert result["protocols"]["team"]["accuracy"] == 0.0 and result["protocols"]["team"]["tokens"] > 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [line[:3] for line in lines[-5:]] == [
        ["task", "protocol", "rows"],
        *([task, protocol, "3"] for task in ("aime24", "math500") for protocol in ("team", "single")),
    ]


def test_what_is_finished_is_not_evaluated_again(saved, monkeypatch, capsys):
    asked, evaluate_one = [], evaluate.evaluate

    def fail_at_the_second(script_args, *arguments):
        asked.append(script_args.dataset_name)
        if asked == ["aime24", "math500"]:
            raise KeyboardInterrupt
        return evaluate_one(script_args, *arguments)

    monkeypatch.setattr(evaluate, "evaluate", fail_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(saved)
    first = json.loads(Path("results/out.json").read_text())["tasks"]
    assert list(first) == ["aime24"]
    whole = run(saved)
    assert asked == ["aime24", "math500", "math500"] and whole["tasks"]["aime24"] == first["aime24"]
    assert run(saved, tasks=["math500", "aime24"]) == whole and len(asked) == 3
    assert whole == run(saved, output="results/again.json") and capsys.readouterr().out.count("aime24") >= 3
    assert sorted(path.name for path in Path("results").iterdir()) == ["again.json", "out.json"]


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--temperature", 0.5], "`temperature` was 1.0 and is 0.5"),
        (["--num_samples", 2], "`num_samples` was 1 and is 2"),
    ],
)
def test_a_file_of_other_settings_is_refused(saved, arguments, told):
    run(saved)
    with pytest.raises(ValueError, match=f"is of another evaluation: .*{told}"):
        run(saved, *arguments)
    Path("results/out.json").write_text(json.dumps({"team": str(saved / "team")}))
    with pytest.raises(ValueError, match="another `--output`, or delete"):
        run(saved)


def test_a_team_that_was_saved_anew_is_another_one(saved, tmp_path):
    assert evaluate_tasks.fingerprint(None) is None and evaluate_tasks.fingerprint("nowhere") is None
    make_trainer(tmp_path / "team", make_team(1)).save_model()
    before = evaluate_tasks.fingerprint(str(tmp_path / "team"))
    (tmp_path / "team" / "notes.txt").write_text("x")
    assert evaluate_tasks.fingerprint(str(tmp_path / "team")) == before
    (tmp_path / "team" / "more.safetensors").write_text("x")
    assert evaluate_tasks.fingerprint(str(tmp_path / "team")) > before


@pytest.mark.parametrize(
    "tasks, arguments, message",
    [
        (["aime23"], [], "`tasks` names 'aime23'; it may hold aime24, aime25"),
        (["aime24", "aime24"], [], "names a task twice"),
        (["aime24"], [], "`task_paths` has math500, which is not among `tasks`"),
        (
            ["aime24", "math500", "arbench_dc"],
            ["--protocols", "team", "debate"],
            "In arbench_dc .* the judge, knows .* debate would",
        ),
        (
            ["aime24", "math500", "tau_airline"],
            ["--protocols", "team", "majority"],
            "In tau_airline agents act on an environment, on which majority cannot be played",
        ),
        (["aime24", "math500"], ["--episodes", "x"], "`episodes` is a file of one dataset"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_loaded(saved, tasks, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(saved, *arguments, tasks=tasks)
    assert not Path("results").exists()


def test_the_dataset_of_a_yaml_file_is_put_aside(saved):
    Path("train.yaml").write_text(
        "dataset_name: link:2\neval_dataset_name: link:3\nreward_funcs: [link]\ndataset_kwargs: {a: 1}\n"
    )
    found = run(saved, "--config", "train.yaml")
    assert found["tasks"]["math500"]["rewards"] == ["math500"] and found["dataset_kwargs"] is None


def test_rows_of_a_stand_in_are_those_that_a_training_on_it_held_out(saved):
    line = ["--team", str(saved / "team"), "--tasks", "aime24:synthetic", "--eval_size", "4", *ON_CPU]
    script_args, _, training_args, _ = evaluate.parse(line)
    script_args.dataset_name = "aime24:synthetic"
    untrained = evaluate.load_tasks(script_args, training_args)
    assert len(untrained) == 4
    about = {"dataset_name": "aime24:synthetic", "dataset_kwargs": {}, "dataset_size": 20, "eval_size": 5, "seed": 3}
    Path("team").mkdir()
    Path("team", TASKS_FILE).write_text(json.dumps(about | {"held_out": True}))
    script_args.team = "team"
    assert len(evaluate.load_tasks(script_args, training_args)) == 4
    assert evaluate.load_tasks(script_args, training_args).to_list() != untrained.to_list()


class NotTurned(tool_teams.Dial):
    def get_reward(self):
        return float(self.count == 0)


def test_a_task_on_an_environment_is_played_on_it(tmp_path, monkeypatch):
    """By a team that was trained on another one, which does not know the environment of any other task."""
    trained_on = {
        "environment_factory": tool_teams.Scored,
        "max_tool_result_length": 1,
        "max_tool_calling_iterations": 1,
    }
    rows = datasets.Dataset.from_dict({"prompt": [tool_teams.PROMPT] * 2})
    make_trainer(tmp_path / "team", tool_teams.tool_team(), [], rows, **trained_on).save_model()
    other = {"environment": f"{__name__}.NotTurned", "stand_in": lambda size, seed: rows}
    monkeypatch.setitem(BENCHMARKS, "arbench_gn", dataclasses.replace(BENCHMARKS["arbench_gn"], **other))
    arguments = ["--protocols", "team", "single", "--num_samples", 8]
    found = run(tmp_path, *arguments, tasks=["arbench_gn:synthetic"], paths="{}")["tasks"]["arbench_gn:synthetic"]
    assert found["rewards"] == [] and 0 < found["protocols"]["team"]["accuracy"] < 1
    with pytest.raises(ValueError, match="acts on an environment of its own, which aime24 does not have"):
        run(tmp_path, tasks=["aime24"], paths="{}")


def test_the_measure_of_a_task_is_its_own_or_that_of_its_environment():
    script_args = evaluate.EvaluationScriptArguments(
        reward_funcs=["accuracy_reward"], environment_factory="some.World"
    )
    arguments = {
        task: evaluate_tasks._arguments_of(task, script_args, {}) for task in ("aime24", "arbench_gn", "tau_retail")
    }
    assert {task: own.reward_funcs for task, own in arguments.items()} == {
        "aime24": ["aime24"],
        "arbench_gn": None,
        "tau_retail": ["tau_retail"],
    }
    assert arguments["aime24"].environment_factory is None
    assert arguments["tau_retail"].environment_factory.endswith("tau2.environment.retail")
