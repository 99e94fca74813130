"""`trl-teamtr export`, in this process; the forms themselves are tested with `save_pretrained`."""

import pytest
from peft import LoraConfig
from tiny import PROMPTS, make_model, make_tokenizer, make_trainer

from trl_teamtr import Agent, Team
from trl_teamtr.cli.main import main


@pytest.fixture
def saved(tmp_path):
    make_model(seed=4).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], init_lora_weights=False)
    agents = [Agent(name, str(tmp_path / "base"), peft_config=lora) for name in "xy"]
    make_trainer(tmp_path / "run", agents, max_completion_length=6).save_model()
    return str(tmp_path / "run")


@pytest.mark.parametrize(
    "form, file",
    [("--merge", "x/model.safetensors"), ("--self-contained", "bases/base/model.safetensors"), (None, None)],
)
def test_the_exported_team_says_the_same(saved, tmp_path, capsys, form, file):
    output = tmp_path / "new"
    assert main(["export", saved, str(output), *([form] if form else [])]) == 0
    assert capsys.readouterr().out == f"Wrote x, y to {output}.\n"
    assert file is None or (output / file).is_file()
    ours, theirs = (Team.from_pretrained(each).generate(PROMPTS, seed=0) for each in (str(output), saved))
    assert [str(talk) for talk in ours] == [str(talk) for talk in theirs]


def test_a_used_directory_and_two_forms_are_refused(saved, tmp_path, capsys):
    with pytest.raises(SystemExit, match="is not empty. Choose another directory"):
        main(["export", saved, str(tmp_path)])
    with pytest.raises(SystemExit):
        main(["export", saved, str(tmp_path / "new"), "--merge", "--self-contained"])
    assert "not allowed with argument" in capsys.readouterr().err
