"""What the training script refuses before it makes anything."""

from types import SimpleNamespace

import pytest
import transformers
from tiny import make_model

from trl_teamtr.cli.train import main, make_parser, make_trainer


@pytest.mark.parametrize(
    "line, message",
    [
        ([], "Set `dataset_name`"),
        (["--dataset_name", "link:2"], "Set `agents` in the YAML file, or `--model_name_or_path`"),
    ],
)
def test_what_is_missing_is_said(tmp_path, line, message):
    command = [*line, "--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false", "--report_to", "none"]
    with pytest.raises(ValueError, match=message):
        make_trainer(*make_parser().parse_args_and_config([*command, "--dataset_size", "4", "--eval_size", "1"]))


def test_it_can_be_a_command_of_another_parser():
    asked = {}
    parsers = SimpleNamespace(add_parser=lambda name, **kwargs: asked.update({name: kwargs}) or "parser")
    assert make_parser(parsers) == "parser" and len(asked["teamtr"]["dataclass_types"]) == 3


@pytest.mark.parametrize(
    "line, expected",
    [
        ([], (None, 2)),
        (["--kl_estimator", "k3", "--gradient_accumulation_steps", "1"], ("k3", 1)),
    ],
)
def test_what_is_left_out_of_a_command_has_its_default(tmp_path, line, expected):
    command = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false", "--report_to", "none"]
    _, args, _ = make_parser().parse_args_and_config([*command, "--steps_per_generation", "2", *line])
    assert (args.kl_estimator, args.gradient_accumulation_steps) == expected


def test_plan_is_printed_without_a_dataset_and_without_weights(tmp_path, monkeypatch, capsys):
    make_model().save_pretrained(tmp_path / "model")

    def refuse(*args, **kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", refuse)
    command = ["--output_dir", str(tmp_path / "run"), "--use_cpu", "true", "--bf16", "false", "--report_to", "none"]
    command += ["--model_name_or_path", str(tmp_path / "model"), "--num_agents", "2", "--max_completion_length", "4"]
    command += ["--plan", "true", "--plan_time", "false", "--plan_prompt_length", "8", "--device_memory_gib", "80"]
    main(*make_parser().parse_args_and_config(command))
    printed = capsys.readouterr().out
    assert "each on a GPU of 80.0 GiB" in printed and "backtracking" in printed and "Everything fits." in printed
    assert not (tmp_path / "run").exists()
