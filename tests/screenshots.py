"""
Screenshots for the docs, of what tests/serving/test_page.py and tests/reports/test_run_report.py open.

    python tests/screenshots.py page runs/quickstart docs/images/page.png "?" a=3 b=5 c=0
    python tests/screenshots.py report runs/quickstart docs/images/report.png
    python tests/screenshots.py report runs/quickstart docs/images/transcripts.png transcripts
"""

import os
import sys

from browser import opened
from served import serving

from trl_teamtr import Team
from trl_teamtr.reports.run_report import make_report


def page(team: str, output: str, question: str, *private: str):
    """The page of a saved team after one question."""
    with serving(Team.from_pretrained(team)) as url, opened(url, width=900, height=680) as tab:
        tab.page.get_by_text("What only one agent reads").click()
        for pair in private:
            agent, _, text = pair.partition("=")
            tab.page.get_by_label(f"only {agent} reads").fill(text)
        tab.page.get_by_label("seed").fill("1")
        tab.page.get_by_label("Your question").fill(question)
        tab.page.get_by_role("button", name="Ask").click()
        tab.page.locator(".message.answer").wait_for(timeout=120_000)
        tab.page.screenshot(path=output)
        assert tab.errors == []


def report(run: str, output: str, part: str | None = None):
    """
    The report of a run, with the transcripts of the highest and the lowest reward of an agent's updates, or only a `part` of
    it, the id of a section.
    """
    with opened(f"file://{os.path.abspath(make_report(run))}", width=1240, height=1000) as tab:
        page = tab.page
        (kind, *_) = [text for text in page.locator("#kind option").all_text_contents() if text.startswith("update")]
        page.locator("#kind").select_option(kind)
        for order in ("highest reward", "lowest reward"):
            page.get_by_role("button", name=order).click()
            page.locator("#list button").first.click()
            page.get_by_label("keep the shown one").check()
        if part is None:
            page.screenshot(path=output, full_page=True)
        else:
            page.locator(f"#{part}").screenshot(path=output)
        assert tab.errors == []


if __name__ == "__main__":
    {"page": page, "report": report}[sys.argv[1]](*sys.argv[2:])
