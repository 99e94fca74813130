"""The report is one file below 5 MB; in a browser it opens without the internet, and finds a transcript in two clicks."""

import json
import logging
import math
import signal

import pytest
from browser import needs_chromium, opened
from tiny import make_team, make_trainer
from transformers import TrainerCallback

from trl_teamtr.reports import run_report
from trl_teamtr.reports.run_report import collect, make_report, render


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "run"
    settings = {"num_stages": 3, "eval_strategy": "steps", "eval_steps": 2, "num_generations_eval": 1}
    trainer = make_trainer(folder, make_team(2), trust_region_radius=0.02, hub_token="the token", **settings)
    trainer.evaluate()
    trainer.train()
    trainer.save_model()
    return folder


def test_what_is_collected(run):
    data = collect(str(run))
    assert data["agents"] == data["trained"] == ["x", "y"] and data["name"] == "run"
    steps = [log["step"] for log in data["logs"] if "agent/x/kl" in log]
    assert steps == [1, 3, 5] and data["logs"][0]["eval_reward"] == pytest.approx(data["logs"][0]["eval_reward"])
    assert len(data["transcripts"]) == data["num_transcripts"] == 40
    assert data["config"]["trust_region_radius"] == 0.02 and data["team"]["agents"][1]["name"] == "y"
    assert data["versions"]["trl"] and "output_dir" not in data["config"]


def test_a_run_that_is_under_way_has_a_report_and_no_run_has_none(run, tmp_path):
    (tmp_path / "log.jsonl").write_text('{"reward": 0.5, "agent/x/kl": 0.01, "step": 1}\n{"reward": 0.')
    data = collect(str(tmp_path))
    assert data["agents"] == ["x"] and len(data["logs"]) == 1 and data["transcripts"] == []
    assert make_report(str(tmp_path)) == str(tmp_path / "report.html")
    with pytest.raises(FileNotFoundError, match="There is no log.jsonl in"):
        make_report(str(tmp_path / "nothing"))


def test_the_file_stays_small_and_shows_all_of_a_long_run(run, monkeypatch):
    keys = [f"agent/{name}/{key}" for name in "xyzabcde" for key in ("kl", "radius", "loss")]
    logs = [{"step": step, "reward": 0.1 + step} | dict.fromkeys(keys, 0.123456) for step in range(1, 20_000)]
    logs[10:10] = [{"step": 10, "eval_reward": 0.5}]
    thinned = run_report._thin_logs(logs)
    assert thinned[0] is logs[0] and thinned[-1] is logs[-1] and logs[10] in thinned
    assert run_report._size(thinned) < 1.1 * run_report.MAX_LOG_BYTES
    (one, *_) = collect(str(run))["transcripts"]
    long = [one | {"step": step, "text": "ü" * 2000} for step in range(3000)]
    kept = run_report._thin_transcripts(long)
    assert kept[0]["step"] == 0 and kept[-1]["step"] == 2999
    mixed = [each | {"agent": None if i in (700, 701, 2000) else "x"} for i, each in enumerate(long)]
    steps = [each["step"] for each in run_report._thin_transcripts(mixed)]
    assert {700, 2000} <= set(steps) and len(steps) < 1000  # the first and the last evaluation
    data = collect(str(run)) | {"logs": thinned, "transcripts": kept}
    assert len(render(data).encode()) < 5_000_000 and len(json.dumps(kept, ensure_ascii=False).encode()) > 2_000_000


def test_a_short_run_is_shown_whole(run):
    data = collect(str(run))
    assert len(data["logs"]) == len((run / "log.jsonl").read_text().splitlines())


@pytest.mark.parametrize("report", [True, False])
def test_a_training_writes_it_at_its_end(tmp_path, report):
    make_trainer(tmp_path, make_team(2), report=report).train()
    assert (tmp_path / "report.html").is_file() is report
    if report:
        assert not (tmp_path / "team.json").exists()  # it is not saved yet
        page = (tmp_path / "report.html").read_text()
        assert '"trust_region_radius": 0.01' in page and '"train_runtime"' in page and '"cpu_cores"' in page


class Interrupt(TrainerCallback):
    def __init__(self, times):
        self.times = times

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("times", [1, 2])
def test_a_run_that_is_interrupted_has_one(tmp_path, times):
    trainer = make_trainer(tmp_path, make_team(2), report=True, callbacks=[Interrupt(times)], num_stages=2)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.state.global_step == 3 - times
    updates = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert f'"updates": {3 - times}' in (tmp_path / "report.html").read_text() and max(updates) == 3 - times


def test_a_report_that_fails_does_not_cost_the_team(tmp_path, monkeypatch, caplog):
    def fail(*args):
        raise OSError("no space left")

    monkeypatch.setattr(run_report, "make_report", fail)
    trainer = make_trainer(tmp_path, make_team(2), report=True)
    with caplog.at_level(logging.WARNING, logger=run_report.__name__):
        assert trainer.train().global_step == 2
    assert "No report was written: OSError('no space left')" in caplog.text


def test_no_text_of_a_run_ends_its_script(run):
    data = collect(str(run))
    data["transcripts"][0]["messages"][0]["text"] = "</script><script>alert(1)</script><!--"
    page = render(data | {"name": "<b>"})
    assert page.count("</script>") == 2 and "<b></h1>" not in page and "the token" not in page


@needs_chromium
def test_it_opens_from_disk_and_a_transcript_is_found_by_its_reward_in_two_clicks(run):
    address = f"file://{make_report(str(run))}"
    data = collect(str(run))
    best = max(data["transcripts"], key=lambda each: each["reward"])
    with opened(address) as tab:
        page = tab.page
        assert page.title() == "run" and page.locator("figure svg").count() >= 8
        labels = page.locator("svg text").all_text_contents()
        assert labels.count("update") == page.locator("figure").count() and "mean return" in labels
        page.get_by_role("button", name="highest reward").click()
        page.locator("#list button").first.click()
        talk = page.locator("#shown article.talk")
        assert f"Reward {best['reward']:.3g}" in talk.inner_text()
        assert talk.locator(".turn").count() == 1 + len(best["messages"])
        # Another one beside it; the filters
        page.get_by_label("keep the shown one").check()
        page.locator("#kind").select_option("held-out")
        page.locator("#list button").nth(1).click()
        assert page.locator("#shown article.talk").count() == 2
        held_out = sum(each["agent"] is None for each in data["transcripts"])
        assert page.locator("#list button").count() == held_out
        page.locator("#from").fill("3")
        assert page.locator("#list button").count() == 4
        page.get_by_label("text").fill("nowhere to be found")
        assert page.locator("#list button").count() == 0
        page.get_by_label("text").fill("")
        page.locator("#prompt").select_option("ua")
        listed = page.locator("#list button span:last-child").all_text_contents()
        assert listed and all(text.startswith("ua → ") for text in listed)
        assert tab.errors == [] and tab.asked_elsewhere == []


@needs_chromium
def test_tokens_are_shaded_and_what_was_said_before_stands_beside_what_is_said_after(run):
    (first, *_) = [each for each in collect(str(run))["transcripts"] if each["agent"] == "x"]
    (message, *_) = [each for each in first["messages"] if each["agent"] == "x"]
    with opened(f"file://{make_report(str(run))}") as tab:
        page = tab.page
        page.locator("#kind").select_option("update of x")
        page.locator("#list button").first.click()
        tokens = page.locator("#shown .turn", has=page.locator("b", has_text="x")).locator(".token")
        assert tokens.count() == message["tokens"] == len(message["log_ratios"])
        for i, ratio in enumerate(message["log_ratios"]):
            title, paint = tokens.nth(i).get_attribute("title"), tokens.nth(i).get_attribute("style")
            assert float(title.rsplit(" ", 1)[1]) == pytest.approx(math.exp(ratio), rel=1e-3)
            assert ("98, 204" in paint) == (ratio > 0) or abs(ratio) < 1e-3
        # Before and after
        assert page.locator("#pair option").count() == 4
        page.locator("#pair").select_option("2")
        before, after = page.locator("#pairs article").all()
        asked = [each["prompt"][-1]["content"] for each in collect(str(run))["transcripts"][2:3]]
        assert all(asked[0] in each.inner_text() for each in (before, after))
        assert "after 0 updates" in before.inner_text() and "after 6 updates" in after.inner_text()
        # Figures
        rows = page.locator("#tables table").first.locator("tr").all_inner_texts()
        assert len(rows) == 3 and rows[1].split()[:2] == ["x", "3"]
        costs = page.locator("#tables table").nth(1).inner_text()
        assert "rollouts" in costs and "tokens sampled" in costs and " s" in costs
        assert tab.errors == []


@needs_chromium
def test_what_messages_are_worth_stands_beside_them(run, tmp_path):
    data = collect(str(run))
    entry = next(each for each in data["transcripts"] if each["agent"] is None)
    entry["messages"][0]["worth"], entry["messages"][1]["worth"] = [0.125, 0.0625], [-0.25, None]
    (tmp_path / "report.html").write_text(render(data | {"transcripts": [entry]}), encoding="utf-8")
    with opened(f"file://{tmp_path / 'report.html'}") as tab:
        tab.page.locator("#list button").first.click()
        first, second = tab.page.locator("#shown .turn", has_text="worth").all()
        assert " worth +0.125 ± 0.0625" in first.inner_text()
        assert " worth -0.25" in second.inner_text() and "±" not in second.inner_text()
        assert tab.errors == []


SWAP = {
    "shock": [0.2, 0.1, None],
    "bound": None,
    "agreement": 0.5,
    "cross_entropy": 3.25,
    "bits_per_byte": None,
}
REPLACEMENT = {
    "member": "y",
    "before": "old",
    "after": "new",
    "unification": {"alignment": True},
    "unaligned": SWAP,
    "aligned": SWAP | {"shock": [0.05, 0.0, 0.1], "bound": 0.4375},
    "tokens_decoded": 1100,
    "tokens_trained": 22000,
    "step": 4,
}


@pytest.fixture
def two_runs(tmp_path):
    """Runs that go on after a replacement, with and without alignment."""
    for name, aligned, gain in (("one", True, 0.1), ("other", False, 0.05)):
        (tmp_path / name).mkdir()
        swap = REPLACEMENT | {"unification": {"alignment": aligned}}
        (tmp_path / name / "replacements.jsonl").write_text(json.dumps(swap) + "\n")
        logs = [{"step": step, "eval_reward": gain * step, "eval_reward_interval": 0.02} for step in (2, 4, 6, 8)]
        (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(log) + "\n" for log in logs))
    return str(tmp_path / "one"), str(tmp_path / "other")


def test_the_curves_begin_with_the_replacement(two_runs):
    data = collect(two_runs[0], beside=two_runs[1])
    assert [curve["name"] for curve in data["curves"]] == ["one: aligned", "other: not aligned"]
    assert data["curves"][0]["points"] == [[0, 0.4, 0.02], [2, pytest.approx(0.6), 0.02], [4, 0.8, 0.02]]
    assert data["replacements"] == [REPLACEMENT] and len(collect(two_runs[0])["curves"]) == 1
    with pytest.raises(FileNotFoundError, match="the run to show beside"):
        make_report(two_runs[0], beside="nowhere")


@needs_chromium
def test_a_replacement_has_a_table_and_two_curves(two_runs):
    path = make_report(two_runs[0], beside=two_runs[1])
    with opened(f"file://{path}") as tab:
        text = tab.page.inner_text("#tables")
        assert "y: old replaced by new" in text and "0.05 [0, 0.1]" in text and "0.2 [0.1, –]" in text
        assert "0.438" in text and "22,000" in text
        figure = tab.page.locator("figure", has_text="Held-out reward since the swap")
        assert "one: aligned" in figure.inner_text() and "other: not aligned" in figure.inner_text()
        assert figure.locator("circle").count() == 6
        assert not tab.errors
