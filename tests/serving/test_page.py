"""The page, in a browser: a question is asked, and every agent's message is seen."""

import pytest
from browser import needs_chromium, opened
from served import Gate, make_chat_team, serving


pytestmark = needs_chromium


@pytest.fixture(scope="module")
def team():
    return make_chat_team(rounds=2)


@pytest.fixture
def tab(team):
    with serving(team) as url, opened(url) as tab:
        yield tab
        assert tab.errors == [] and tab.asked_elsewhere == []


def ask(page, question, seed="3"):
    page.get_by_label("seed").fill(seed)
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Ask").click()


def messages(page):
    """Authors and texts of the messages of the talk, once it has ended."""
    page.locator(".message.answer").last.wait_for()
    return [
        (m.locator("b").inner_text(), m.locator("span").first.text_content()) for m in page.locator(".message").all()
    ]


def test_a_question_is_answered_by_the_whole_team(tab, team):
    ask(tab.page, "au")
    talk = team.chat("au", seed=3)
    assert messages(tab.page) == [(m.agent, m.text) for m in talk.messages]
    assert tab.page.locator(".question").inner_text() == "au"
    assert tab.page.locator(".message.answer").count() == 1 and tab.page.locator(".writing").count() == 0
    # The answer is part of the next question
    ask(tab.page, "u")
    tab.page.locator(".message.answer").nth(1).wait_for()
    turns = [{"role": "user", "content": "au"}, {"role": "assistant", "content": talk.final_text}]
    again = team.chat([*turns, {"role": "user", "content": "u"}], seed=3)
    assert messages(tab.page)[4:] == [(m.agent, m.text) for m in again.messages]


def test_a_member_alone_and_private_prompts(tab, team):
    tab.page.get_by_text("What only one agent reads").click()
    tab.page.get_by_label("only y reads").fill("aaaa")
    ask(tab.page, "au")
    assert messages(tab.page) == [(m.agent, m.text) for m in team.chat("au", {"y": "aaaa"}, seed=3).messages]
    tab.page.locator("#model").select_option("team/y")
    ask(tab.page, "au")
    assert messages(tab.page) == [("y", team.member("y").chat("au", seed=3).final_text)]


def test_what_a_message_says_is_shown_as_text(tab, team, monkeypatch):
    monkeypatch.setattr(
        type(team.speakers[0].tokenizer), "decode", lambda *args, **kwargs: "<img src=x onerror=alert(1)>"
    )
    ask(tab.page, "<b>au</b>")
    tab.page.locator(".message").first.wait_for()
    assert tab.page.locator(".question").inner_text() == "<b>au</b>"
    assert tab.page.locator("main img").count() == tab.page.locator(".question b").count() == 0
    tab.page.get_by_role("button", name="Ask").wait_for()


def test_a_talk_is_stopped_and_another_one_begun(tab, team):
    with Gate(team):
        ask(tab.page, "au")
        tab.page.get_by_role("button", name="Stop").click()
        tab.page.get_by_text("Stopped.").wait_for()
    tab.page.get_by_role("button", name="New talk").click()
    ask(tab.page, "au")
    assert len(messages(tab.page)) == 4


def test_an_error_is_shown(team):
    with serving(team) as url, opened(url) as tab:
        ask(tab.page, "a" * 200)
        tab.page.get_by_text("has room for 120").wait_for()
        # The browser itself notes the status of the answer
        assert [error for error in tab.errors if "400 (Bad Request)" not in error] == []


def test_the_key_is_asked_for(team):
    with serving(team, api_key="the key") as url, opened(url) as tab:
        tab.page.get_by_label("API key").fill("the key")
        tab.page.get_by_label("API key").press("Tab")
        tab.page.get_by_text("team: x, y").wait_for()
        ask(tab.page, "au")
        assert len(messages(tab.page)) == 4
        assert [error for error in tab.errors if "401 (Unauthorized)" not in error] == []
