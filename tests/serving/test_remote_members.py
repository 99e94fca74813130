"""A served team with a member behind an endpoint, which is a served team itself."""

import httpx
import openai
import pytest
from fake_endpoint import KEY
from served import make_chat_team, serving
from tiny import make_model, make_tokenizer

from trl_teamtr import Agent, Team
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
from trl_teamtr.conversation.rules import TurnTaking
from trl_teamtr.policy.remote.endpoint import EndpointClient


QUESTION = [{"role": "user", "content": "au"}]


def make_team(url: str) -> Team:
    tokenizer = make_tokenizer(4)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}.{% endfor %}"
    agents = [
        Agent("x", make_model(4), processing_class=tokenizer),
        Agent("far", endpoint=f"{url}/v1", model="team/y"),
    ]
    return Team.from_agents(agents, SpeakingSettings(SamplingSettings(max_completion_length=4)), TurnTaking(2))


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(EndpointClient, "backoff", 0.0)


def test_a_served_team_is_an_endpoint_for_another(caplog):
    with serving(make_chat_team("xy"), api_key=KEY) as far:
        team = make_team(far)
        team.speakers[1].check_endpoint()
        with serving(team) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            answer = client.chat.completions.create(model="team", messages=QUESTION, seed=3)
            talk = team.chat("au", seed=3)
            assert [(m["name"], m["content"]) for m in answer.teamtr["transcript"]] == [
                (message.agent, message.text) for message in talk.messages
            ]
            assert [message.agent for message in talk.messages] == ["x", "far", "x", "far"]
            # The far team counts the tokens of its message
            assert answer.usage.completion_tokens == sum(message.num_tokens for message in talk.messages)
            chunks = client.chat.completions.create(model="team", messages=QUESTION, seed=3, stream=True)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == talk.final_text
            alone = client.chat.completions.create(model="team/far", messages=QUESTION, seed=3)
            assert alone.choices[0].message.content == team.member("far").chat(QUESTION, seed=3).final_text


def test_an_endpoint_that_has_gone_ends_the_talk_and_not_the_server(caplog):
    with serving(make_chat_team("xy"), api_key=KEY) as far:
        team = make_team(far)
    with serving(team) as url:
        for stream in (False, True):
            body = {"model": "team", "messages": QUESTION, "stream": stream}
            answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
            assert "remote member of the team has not answered" in answer.text and KEY not in answer.text
            assert stream or answer.status_code == 502
        alone = httpx.post(f"{url}/v1/chat/completions", json=body | {"model": "team/x", "stream": False}, timeout=60)
        assert alone.status_code == 200
    assert KEY not in caplog.text
