"""`trl-teamtr replace` on a saved team, on a checkpoint, and by `examples/replace.yaml`."""

import json
from pathlib import Path

import pytest
import yaml
from newcomers import make_newcomer
from resuming import SETTINGS, StopAfter
from tiny import make_team, make_trainer

from trl_teamtr import Agent, Team, load_team
from trl_teamtr.cli.main import main
from trl_teamtr.cli.replace import spell_out
from trl_teamtr.tasks import link


ROOT = Path(__file__).parents[2]
QUICK = ["--use_cpu", "true", "--num_train_epochs", "1", "--eval_size", "4", "--learning_rate", "1e-2"]


def save_newcomer(path):
    agent = make_newcomer("y")
    for part in (agent.model, agent.processing_class):
        part.save_pretrained(path)
    return str(path)


@pytest.fixture
def tasks(tmp_path):
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps({"prompt": "au"[i % 2] * (1 + i % 3)}) + "\n" for i in range(24)))
    return str(path)


def test_a_member_of_a_saved_team(tmp_path, tasks, capsys):
    make_trainer(tmp_path / "run", make_team(2, 4)).save_model()
    new = save_newcomer(tmp_path / "new_model")
    command = ["replace", str(tmp_path / "run"), "--member", "y", "--model", new, "--align", "20"]
    command += [
        "--dataset_name",
        tasks,
        "--reward_funcs",
        "length_reward.score",
        "--output",
        str(tmp_path / "new"),
        *QUICK,
    ]
    (tmp_path / "length_reward.py").write_text(
        "def score(completions, **kwargs):\n    return [0.0] * len(completions)\n"
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path)
        assert main(command) == 0
    shown = capsys.readouterr().out
    assert "y: " in shown and "swap shock" in shown and "aligned:" in shown
    (report,) = [json.loads(line) for line in (tmp_path / "new" / "replacements.jsonl").read_text().splitlines()]
    assert report["member"] == "y" and report["num_probes"] == 16 and report["aligned"]["shock"] == [0.0, 0.0, 0.0]
    team = Team.from_pretrained(str(tmp_path / "new"))
    assert team.speakers[1].tokenizer.get_vocab()["aa"] == 0 and load_team(str(tmp_path / "new"))[0].history
    with pytest.raises(SystemExit, match="is not empty. Choose another directory"):
        main(command)


def test_a_member_of_a_run_which_goes_on(tmp_path, tasks):
    fields = SETTINGS | {"num_stages": 3}
    make_trainer(tmp_path / "run", make_team(2, 4), callbacks=[StopAfter(4)], **fields).train()
    new, output = save_newcomer(tmp_path / "new_model"), tmp_path / "new"
    command = ["replace", str(tmp_path / "run" / "checkpoint-4"), "--member", "y", "--model", new, "--align", "0"]
    assert main([*command, "--dataset_name", tasks, "--output", str(output), *QUICK]) == 0
    path = str(output / "checkpoint-4")
    trainer = make_trainer(output, path, **fields)
    trainer.train(resume_from_checkpoint=path)
    assert trainer.state.global_step == 6 and trainer.members[1].joined == 4
    (event,) = trainer.team.describe()["history"]
    assert event["step"] == 4 and not event["aligned"]


def test_the_example(tmp_path, monkeypatch):
    """As it is printed, on a team of random weights."""
    example = ROOT / "examples" / "replace.yaml"
    settings = yaml.safe_load(example.read_text())
    monkeypatch.chdir(tmp_path)
    tokenizer = link.make_tokenizer()
    team = [Agent(n, link.make_model(tokenizer, i), processing_class=tokenizer) for i, n in enumerate("abc")]
    dataset = link.make_dataset(3, 64, 0)
    make_trainer(
        "runs/quickstart", team, link.link_reward, dataset, max_completion_length=4, num_generations=2
    ).save_model()
    link.make_model(tokenizer, 9, head_dim=32).save_pretrained(settings["model"])
    tokenizer.save_pretrained(settings["model"])
    small = ["--num_train_epochs", "1", "--num_probes", "40", "--eval_size", "16"]
    assert main(["replace", "--config", str(example), *small]) == 0
    report = json.loads(Path("runs/replaced/replacements.jsonl").read_text())
    assert report["member"] == "b" and report["aligned"]["cross_entropy"] < report["unaligned"]["cross_entropy"]
    assert Team.from_pretrained("runs/replaced").names == ("a", "b", "c")


def test_what_is_missing_or_wrong_is_said(tmp_path, tasks):
    make_trainer(tmp_path / "run", make_team(2, 4)).save_model()
    run = str(tmp_path / "run")
    with pytest.raises(SystemExit, match="error: Set member, model, output, dataset_name, in the YAML"):
        main(["replace", run])
    command = [
        "replace",
        run,
        "--member",
        "q",
        "--model",
        run,
        "--dataset_name",
        tasks,
        "--output",
        str(tmp_path / "n"),
    ]
    with pytest.raises(SystemExit, match="has no member 'q'. Its members are x, y"):
        main([*command, *QUICK])
    with pytest.raises(SystemExit, match="so that no probe is left. Lower it"):
        main([*command, "--eval_size", "24"])
    assert not (tmp_path / "n").exists()


def test_short_forms():
    assert spell_out(["run", "--align", "500"]) == ["--team", "run", "--num_probes", "500", "--align", "true"]
    assert spell_out(["--align", "0"]) == ["--align", "false"]
    assert spell_out(["--align", "false"]) == ["--align", "false"]
