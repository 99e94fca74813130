"""What W&B (offline), trackio and TensorBoard hold of a run: the team, a group for each agent, a table of transcripts."""

import json

import pytest
from datasets import Dataset
from tiny import PROMPTS, answer_reward, make_team, make_trainer
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback
from transformers.trainer_callback import CallbackHandler, PrinterCallback

from trl_teamtr.reports import trackers
from trl_teamtr.reports.trackers import Stages, adapt_trackers, make_table, split_by_agent
from trl_teamtr.reports.transcript_log import TRANSCRIPT_FILE


# What there is of each agent, in a group of its own
OF_AGENT = {"loss", "grad_norm", "learning_rate", "entropy", "kl", "kl_per_token", "kl_proposed", "kl_coef", "radius"}
OF_AGENT |= {"inner_steps", "backtracks", "rejected", "idle", "silent", "kl_floor", "kl_last_pass"}
OF_AGENT |= {f"clip_ratio/{name}" for name in ("low_mean", "low_min", "high_mean", "high_max", "region_mean")}
OF_AGENT |= {f"completions/{kind}_{of}" for kind in ("mean", "min", "max") for of in ("length", "terminated_length")}
OF_AGENT |= {"completions/clipped_ratio", "completions/unanswered_ratio"}
AGENTS = {f"agent_{name}/{key}" for name in "xy" for key in OF_AGENT}
OTHERS = {
    f"train/{key}"
    for key in ("reward", "team/reward", "rewards/answer_reward/mean", "out_of_region_rate", "step_time")
}
OTHERS |= {"train/rollout/tokens_decoded", "train/sampling/kl", "train/global_step", "train/loss"}

COLUMNS = ["step", "stage", "agent", "prompt", "private_prompts", "transcript", "reward"]
COLUMNS += ["reward/answer_reward", "reward/length", "advantage"]

DATA = Dataset.from_list([{"prompt": prompt, "agent_prompts": {"x": None, "y": "uu"}} for prompt in PROMPTS])


def length(completions, **kwargs):
    return [len(completion) / 10 for completion in completions]


def train(folder, tracker):
    team = make_team(2)
    team[0].system_prompt = "aa"
    fields = {"num_stages": 2, "report_to": tracker, "reward_weights": [1.0, 0.5]}
    trainer = make_trainer(folder, team, [answer_reward, length], DATA, **fields)
    trainer.train()
    return trainer


def check_table(table):
    assert list(table.columns) == COLUMNS and len(table) == 16
    assert list(table["agent"][::4]) == ["x", "y", "x", "y"] and list(table["stage"][::4]) == [1, 1, 2, 2]
    assert set(table["private_prompts"]) == {"y: uu"}
    assert all(text.startswith("x: ") and "\ny: " in text for text in table["transcript"])
    assert all(text.startswith("user: ") for text in table["prompt"])
    made_of = table["reward/answer_reward"] + 0.5 * table["reward/length"]
    assert made_of.to_list() == pytest.approx(table["reward"].to_list(), abs=1e-5)


def check_team(team):
    assert [(agent["name"], agent["system_prompt"]) for agent in team["agents"]] == [("x", "aa"), ("y", None)]
    assert team["rollout"]["router"] == "round_robin" and all("base_model" in agent for agent in team["agents"])


def test_wandb(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    logged, log, defined, define = [], wandb.Run.log, {}, wandb.Run.define_metric

    def spy(run, data, *args, **kwargs):
        logged.append(data)
        return log(run, data, *args, **kwargs)

    def note(run, name, step_metric=None, **kwargs):
        defined[name] = step_metric
        return define(run, name, step_metric=step_metric, **kwargs)

    monkeypatch.setattr(wandb.Run, "log", spy)
    monkeypatch.setattr(wandb.Run, "define_metric", note)
    train(tmp_path, "wandb")
    check_team(wandb.config["team"])
    wandb.finish()
    keys = {key for data in logged for key in data}
    assert keys >= AGENTS | OTHERS | {"transcripts", "stage"}
    assert not any(key.startswith("train/agent") for key in keys)
    # Panels of an agent are over stages, whose updates of all agents are beside each other; others over updates
    assert {key: defined[key] for key in AGENTS} == dict.fromkeys(AGENTS, "stage")
    assert defined["*"] == "train/global_step" and "stage" in defined
    assert [data["stage"] for data in logged if "stage" in data] == [1, 1, 2, 2]
    tables = [data["transcripts"].get_dataframe() for data in logged if "transcripts" in data]
    assert [len(table) for table in tables] == [8, 16, 16]  # after stages 1 and 2, and at the end
    check_table(tables[-1])


def test_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    logged, log, configs = [], trackio.Run.log, []

    def spy(run, metrics, *args, **kwargs):
        logged.append(metrics)
        configs.append(dict(run.config))
        return log(run, metrics, *args, **kwargs)

    monkeypatch.setattr(trackio.Run, "log", spy)
    train(tmp_path, "trackio")
    check_team(configs[-1]["team"])
    assert {key for data in logged for key in data} >= AGENTS | OTHERS | {"transcripts", "stage"}
    tables = [data["transcripts"] for data in logged if "transcripts" in data]
    assert len(tables) == 3
    check_table(make_table(str(tmp_path)))


def test_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tb"))
    train(tmp_path, "tensorboard")
    events = EventAccumulator(str(next((tmp_path / "tb").rglob("*tfevents*")).parent))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert tags >= AGENTS | OTHERS - {"train/global_step"}
    # A group is what stands before the first slash
    assert {tag.split("/")[0] for tag in tags} == {"train", "agent_x", "agent_y"}
    text = events.Tensors("team/text_summary")[0].tensor_proto.string_val[0].decode()
    check_team(json.loads(text.strip("`\n")))


def test_only_the_plain_callbacks_are_replaced_and_the_order_stays():
    class Own(WandbCallback):
        pass

    writer = object()
    plain = [WandbCallback(), PrinterCallback(), Own(), TensorBoardCallback(writer), TrackioCallback()]
    handler = CallbackHandler(plain, None, None, None, None)
    adapt_trackers(handler, dict, 2)
    assert [type(callback).__name__ for callback in handler.callbacks] == [
        "TeamWandbCallback",
        "PrinterCallback",
        "Own",
        "TeamTensorBoardCallback",
        "TeamTrackioCallback",
    ]
    assert handler.callbacks[3].tb_writer is writer


def test_keys_of_agents_are_told_from_others():
    logs = {"agent/a.b/kl": 1, "agent/x/completions/mean_length": 2, "reward": 3, "eval_reward": 4, "agent/x": 5}
    assert split_by_agent(logs) == (
        {"reward": 3, "eval_reward": 4, "agent/x": 5},
        {"agent_a.b/kl": 1, "agent_x/completions/mean_length": 2},
    )


def test_tables_of_a_run_are_few():
    stages = Stages(3)
    assert [step for step in range(1, 100) if stages.table_is_due(step)] == [3, 6, 12, 24, 48, 96]
    assert not stages.table_is_due(96)
    assert [stages.of(step) for step in (0, 1, 3, 4)] == [0, 1, 1, 2]


def test_a_table_is_bounded_in_rows_and_in_text(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "MAX_ROWS", 5)
    monkeypatch.setattr(trackers, "MAX_TEXT", 10)
    entry = {
        "stage": 1,
        "agent": None,
        "private": {},
        "reward": None,
        "prompt": [{"role": "user", "content": "a" * 50}],
    }
    entry["messages"] = [{"agent": "x", "text": "b" * 50}] * 3
    (tmp_path / TRANSCRIPT_FILE).write_text(
        "".join(json.dumps(entry | {"step": i}) + "\n" for i in range(100)) + '{"cut'
    )
    table = make_table(str(tmp_path))
    assert list(table["step"]) == [0, 25, 50, 74, 99] and set(table["agent"]) == {"(evaluation)"}
    assert set(table["prompt"]) == {"user: aaaa …"} and set(table["transcript"]) == {"x: bbbbbbb …"}
    assert len(make_table(str(tmp_path / "nothing"))) == 0
