"""The report is one file below 5 MB; in a browser it opens without the internet, and finds a transcript in two clicks."""

import json

import pytest
from browser import needs_chromium, opened
from tiny import make_team, make_trainer

from trl_teamtr.reports import run_report
from trl_teamtr.reports.run_report import collect, make_report, render


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "run"
    settings = {"num_stages": 3, "eval_strategy": "steps", "eval_steps": 2, "radius_schedule": "uniform"}
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
    logs = [{"step": step, "reward": 0.1 + step, "agent/x/kl": 0.001 * step} for step in range(50_000)]
    thinned = run_report._thin(logs, run_report.MAX_LOGS)
    assert len(thinned) == run_report.MAX_LOGS and thinned[0] is logs[0] and thinned[-1] is logs[-1]
    (one, *_) = collect(str(run))["transcripts"]
    kept = run_report._thin_to_size([one | {"step": step, "text": "ü" * 2000} for step in range(3000)])
    assert kept[0]["step"] == 0 and kept[-1]["step"] == 2999
    data = collect(str(run)) | {"logs": thinned, "transcripts": kept}
    assert len(render(data).encode()) < 5_000_000 and len(json.dumps(kept, ensure_ascii=False).encode()) > 2_000_000


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
        assert page.title() == "run" and page.locator("figure svg").count() >= 6
        labels = page.locator("svg text").all_text_contents()
        assert labels.count("update") == page.locator("figure").count() and "mean return" in labels
        page.get_by_role("button", name="highest reward").click()
        page.locator("#list button").first.click()
        talk = page.locator("article.talk")
        assert f"Reward {best['reward']:.3g}" in talk.inner_text()
        assert talk.locator(".turn").count() == 1 + len(best["messages"])
        # Another one beside it; the filters
        page.get_by_label("keep the shown one").check()
        page.locator("#kind").select_option("held-out")
        page.locator("#list button").nth(1).click()
        assert page.locator("article.talk").count() == 2
        held_out = sum(each["agent"] is None for each in data["transcripts"])
        assert page.locator("#list button").count() == held_out
        page.locator("#from").fill("3")
        assert page.locator("#list button").count() == 4
        page.get_by_label("text").fill("nowhere to be found")
        assert page.locator("#list button").count() == 0
        assert tab.errors == [] and tab.asked_elsewhere == []
