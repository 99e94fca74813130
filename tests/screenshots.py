"""
Screenshots for the docs, of what tests/serving/test_page.py opens.

    python tests/screenshots.py page runs/quickstart docs/images/page.png "?" a=3 b=5 c=0
"""

import sys

from browser import opened
from served import serving

from trl_teamtr import Team


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


if __name__ == "__main__":
    {"page": page}[sys.argv[1]](*sys.argv[2:])
