"""The server, used by OpenAI's own client over HTTP."""

import concurrent.futures
import http.client
import json
import threading
import time

import httpx
import openai
import pytest
from served import Gate, make_chat_team, serving

from trl_teamtr.rollouts.talks import Wishes


QUESTION = [{"role": "user", "content": "au"}]


@pytest.fixture(scope="module")
def team():
    return make_chat_team(rounds=2)


@pytest.fixture(scope="module")
def url(team):
    with serving(team, max_talks=8, max_waiting=60, max_body=4096) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, model="team", messages=QUESTION, **fields):
    return client.chat.completions.create(model=model, messages=messages, **fields)


def health(url):
    return httpx.get(f"{url}/health").json()


def wait_until(is_so):
    for _ in range(3000):
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("it has not come")


def test_the_answer_is_that_of_the_team_with_the_talk_beside_it(client, team):
    answer, talk = ask(client, seed=3), team.chat("au", seed=3)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == (
        "assistant",
        talk.final_text,
        "stop" if talk.messages[-1].finished else "length",
    )
    assert [(m["name"], m["content"]) for m in answer.teamtr["transcript"]] == [
        (m.agent, m.text) for m in talk.messages
    ]
    assert choice.teamtr["transcript"] == answer.teamtr["transcript"] and answer.teamtr["seed"] == 3
    assert answer.object == "chat.completion" and answer.model == "team" and answer.id.startswith("chatcmpl-")
    assert answer.usage.completion_tokens == sum(len(message.ids) for message in talk.messages)
    assert answer.usage.prompt_tokens == len("au") + len(".") and answer.usage.total_tokens == sum(
        (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    )


def test_a_stream_has_the_same_answer_in_pieces_and_every_message(client, team):
    talk = team.chat("au", seed=3)
    chunks = list(ask(client, seed=3, stream=True, stream_options={"include_usage": True}))
    *pieces, last = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == talk.final_text
    assert pieces[0].choices[0].delta.role == "assistant" and {chunk.id for chunk in chunks} == {last.id}
    assert [c.choices[0].finish_reason for c in pieces if c.choices[0].finish_reason] == [
        ask(client, seed=3).choices[0].finish_reason
    ]
    assert last.choices == [] and last.usage == ask(client, seed=3).usage
    events = [chunk.teamtr for chunk in pieces if "teamtr" in chunk.model_extra]
    whole = [(event["agent"], event["message"]) for event in events if "message" in event]
    assert whole == [(message.agent, message.text) for message in talk.messages]
    for turn, message in enumerate(talk.messages):
        own = [event["text"] for event in events if event.get("turn") == turn]
        assert own[0] == "" and "".join(own) == message.text


def test_an_answer_that_may_not_be_the_last_message_comes_at_its_end(team, client, monkeypatch):
    monkeypatch.setattr(team.rules, "stop_condition", lambda transcript: len(transcript.messages) == 3)
    talk = team.chat("au", seed=3)
    chunks = list(ask(client, seed=3, stream=True))
    assert [c.choices[0].delta.content for c in chunks if c.choices[0].delta.content] == [talk.messages[2].text]


def test_several_choices_are_several_talks(client):
    answer = ask(client, seed=3, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    talks = [choice.teamtr["transcript"] for choice in answer.choices]
    assert talks[0] != talks[1] and talks[0] == ask(client, seed=3).teamtr["transcript"]
    chunks = list(ask(client, seed=3, n=2, stream=True))
    for index, choice in enumerate(answer.choices):
        own = [c.choices[0].delta.content or "" for c in chunks if c.choices[0].index == index]
        assert "".join(own) == choice.message.content
    assert sum(chunk.choices[0].finish_reason is not None for chunk in chunks) == 2


def test_a_seed_gives_the_same_answer_and_none_another(client):
    first, again = ask(client, seed=11), ask(client, seed=11)
    assert first.choices[0].teamtr == again.choices[0].teamtr
    drawn = ask(client)
    assert ask(client, seed=drawn.teamtr["seed"]).choices[0].teamtr == drawn.choices[0].teamtr
    assert len({str(ask(client).choices[0].teamtr) for _ in range(5)}) > 1


def test_temperature_and_max_tokens_are_honoured(client, team):
    greedy = ask(client, temperature=0, max_tokens=2)
    talk = team.begin("au", wishes=Wishes(1, 0.0, 2))
    while not talk.ended:
        talk.go_on([talk])
    assert [m["content"] for m in greedy.teamtr["transcript"]] == [m.text for m in talk.transcript.messages]
    assert all(m["tokens"] <= 2 for m in greedy.teamtr["transcript"])
    assert ask(client, temperature=0, max_tokens=2).choices[0].teamtr == greedy.choices[0].teamtr
    cut = [ask(client, max_tokens=1, seed=seed).choices[0] for seed in range(12)]
    assert {choice.finish_reason for choice in cut} == {"stop", "length"}


def test_each_member_is_a_model_of_its_own(client, team):
    assert [model.id for model in client.models.list()] == ["team", "team/x", "team/y"]
    answer = ask(client, model="team/y", seed=2)
    (message,) = team.member("y").chat("au", seed=2).messages
    assert answer.choices[0].message.content == message.text and len(answer.teamtr["transcript"]) == 1


def test_private_prompts_are_read_by_their_agent(client, team):
    private = {"y": "aaaa"}
    answer = ask(client, seed=2, extra_body={"teamtr": {"agent_prompts": private}})
    talk = team.chat("au", private, seed=2)
    assert [m["content"] for m in answer.teamtr["transcript"]] == [m.text for m in talk.messages]
    with pytest.raises(openai.BadRequestError, match="names z, but the team is x, y"):
        ask(client, extra_body={"teamtr": {"agent_prompts": {"z": "a"}}})


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_is_told_before_anything_is_generated(client, stream):
    with pytest.raises(openai.BadRequestError, match="takes 201 tokens in the view of x.*has room for 120") as caught:
        ask(client, messages=[{"role": "user", "content": "a" * 200}], stream=stream)
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "messages"


def test_an_unknown_model_is_told_which_there_are(client):
    with pytest.raises(
        openai.NotFoundError, match="`gpt-5` does not exist. There are: team, team/x, team/y"
    ) as caught:
        ask(client, model="gpt-5")
    assert caught.value.code == "model_not_found"


def test_what_is_not_supported_is_refused_by_name(client):
    with pytest.raises(openai.BadRequestError, match="`stop` is not supported") as caught:
        ask(client, stop=["\n"])
    assert caught.value.param == "stop" and caught.value.type == "invalid_request_error"


def test_fifty_requests_at_a_time_of_which_ten_go_away(client, url, team):
    """Those that stay get the answers that they get alone; the rows of the others are free."""
    alone = [str(team.chat("au", seed=seed)) for seed in range(40)]

    def show(answer):
        return "\n".join(f"{m['name']}: {m['content']}" for m in answer.teamtr["transcript"])

    with concurrent.futures.ThreadPoolExecutor(50) as pool, Gate(team) as gate:
        futures = [pool.submit(ask, client, seed=seed) for seed in range(40)]
        wait_until(lambda: sum(health(url)[name] for name in ("talking", "waiting")) == 40)
        gone = [go_away(url, stream=number % 2 == 0) for number in range(10)]
        wait_until(lambda: sum(health(url)[name] for name in ("talking", "waiting")) == 50)
        for connection in gone:
            connection.close()
        wait_until(lambda: sum(health(url)[name] for name in ("talking", "waiting")) == 40)
        gate.open()
        answers = [future.result(timeout=60) for future in futures]
    assert [show(answer) for answer in answers] == alone
    wait_until(lambda: health(url) == {"status": "ok", "talking": 0, "waiting": 0})


def go_away(url, stream):
    """A connection with a request whose answer is not read."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    body = {"model": "team", "messages": QUESTION, "stream": stream}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    return connection


def test_a_reader_who_leaves_in_the_middle_frees_the_row(team, url, client):
    stream = ask(client, seed=3, stream=True)
    with Gate(team):
        next(iter(stream))
        wait_until(lambda: health(url)["talking"] == 1)
        stream.close()
    wait_until(lambda: health(url)["talking"] == 0)


@pytest.mark.parametrize(
    "content, kind, status, message",
    [
        (b'{"model": "team"', "application/json", 400, "The body is no JSON"),
        (b"[1]", "application/json", 400, "must be a JSON object, got list"),
        (b"{}", "application/json", 400, "`model`: Field required"),
        (b'{"a": "' + b"a" * 5000 + b'"}', "application/json", 413, "more than 4096 bytes"),
        (b"{}", "text/plain", 415, "Send `Content-Type: application/json`"),
    ],
)
def test_a_body_that_cannot_be_read_is_told(url, content, kind, status, message):
    answer = httpx.post(f"{url}/v1/chat/completions", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status and message in answer.json()["error"]["message"]


def test_other_paths_and_other_hosts_are_refused(url):
    answer = httpx.get(f"{url}/v1/embeddings")
    assert answer.status_code == 404 and "/v1/embeddings" in answer.json()["error"]["message"]
    assert httpx.get(f"{url}/v1/chat/completions").status_code == 405
    assert httpx.get(f"{url}/v1/models", headers={"Host": "evil.example"}).status_code == 400


def test_the_key_is_asked_for(team):
    with serving(team, api_key="the key") as url:
        for key, message in (("another", "The API key is wrong"), ("the ke", "The API key is wrong")):
            with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
                for call in (lambda: ask(client), client.models.list):  # noqa: B023  # called at once
                    with pytest.raises(openai.AuthenticationError, match=message) as caught:
                        call()
                    assert caught.value.code == "invalid_api_key"
        missing = httpx.post(f"{url}/v1/chat/completions", json={"model": "team", "messages": QUESTION})
        assert missing.status_code == 401 and "no API key" in missing.json()["error"]["message"]
        with openai.OpenAI(base_url=f"{url}/v1", api_key="the key") as client:
            assert ask(client, seed=1).choices[0].message.content == team.chat("au", seed=1).final_text
        assert httpx.get(f"{url}/health").status_code == httpx.get(url).status_code == 200


def test_a_server_that_is_busy_or_slow_says_so(team):
    with serving(team, max_talks=1, max_waiting=1, timeout=0.5) as url, Gate(team):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            slow = threading.Thread(target=lambda: pytest.raises(openai.APIStatusError, ask, client, n=2))
            slow.start()
            wait_until(lambda: health(url)["waiting"] == 1)
            with pytest.raises(openai.RateLimitError, match="1 conversations are held and 1 wait"):
                ask(client)
            slow.join()
            with pytest.raises(openai.InternalServerError, match="not there within 0.5 seconds"):
                ask(client)


def test_a_team_that_fails_says_so_without_its_secrets(team, client, monkeypatch):
    def fail(requests):
        raise MemoryError("a path of this machine")

    monkeypatch.setattr(team.speakers[0].backend, "generate", fail)
    with pytest.raises(openai.InternalServerError, match="The team has failed with MemoryError") as caught:
        ask(client)
    assert "a path" not in str(caught.value)
    with pytest.raises(openai.APIError, match="The team has failed with MemoryError"):
        list(ask(client, stream=True))


def test_a_team_of_plain_prompts_reads_the_turns_as_one_text(team):
    plain = make_chat_team()
    plain.conversational = False
    with serving(plain) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        answer = ask(client, messages=[{"role": "system", "content": "u"}, *QUESTION], seed=1)
    assert answer.choices[0].message.content == plain.chat("u\n\nau", seed=1).final_text
