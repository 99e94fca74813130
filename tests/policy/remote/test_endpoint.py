"""What an endpoint is asked, and what is said of one that does not answer. No message has the key."""

import pytest
from fake_endpoint import KEY, answering, remote_agent

from trl_teamtr.policy.remote.endpoint import EndpointClient, RemoteMemberError


BODY = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "seed": 1, "max_tokens": 2}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(EndpointClient, "backoff", 0.0)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def text_of(answer):
    return answer["choices"][0]["message"]["content"]


def test_the_key_is_sent_if_there_is_one_and_read_each_time(monkeypatch):
    with answering() as server:
        client = EndpointClient(remote_agent(server, api_key_env="MY_KEY"))
        client.check()
        client.complete(BODY)
        monkeypatch.setenv("MY_KEY", f" {KEY}\n")  # as a file may have it
        client.check()
        client.complete(BODY)
    assert [headers.get("Authorization") for headers in server.headers] == [
        None,
        None,
        f"Bearer {KEY}",
        f"Bearer {KEY}",
    ]
    assert KEY not in str(vars(client)) + repr(client)


def test_a_key_in_netrc_is_not_sent(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("default login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with answering() as server:
        EndpointClient(remote_agent(server)).complete(BODY)
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_passes_is_asked_again(status):
    with answering(failures=[(status, {"Retry-After": "0"})] * 3) as server:
        client = EndpointClient(remote_agent(server))
        assert text_of(client.complete(BODY)) == text_of(server.complete(BODY))
        assert len(server.bodies) == 4 and server.bodies[0] == server.bodies[3] == BODY


def test_what_does_not_pass_says_how_often_it_was_asked():
    with answering(failures=[(503, {})] * 20) as server:
        with pytest.raises(
            RemoteMemberError, match="answered with status 503: .*It is 503.*asked 7 times.*`endpoint_concurrency`"
        ):
            EndpointClient(remote_agent(server)).complete(BODY)
        assert len(server.bodies) == 7


@pytest.mark.parametrize(
    "status, advice",
    [
        (400, "`generation_kwargs=.*` of the agent leaves out a field"),
        (404, "Is the name of the model right"),
        (301, "where nothing is sent"),
        (418, "Mend what it says."),
    ],
)
def test_a_refusal_is_told_at_once_with_what_to_do(status, advice):
    with answering(failures=[(status, {"Location": "http://127.0.0.1:9/v1"})]) as server:
        with pytest.raises(RemoteMemberError, match=advice) as caught:
            EndpointClient(remote_agent(server, "critic")).complete(BODY)
        assert len(server.bodies) == 1
    message = str(caught.value)
    assert (
        f"The endpoint {server.url} of agent 'critic' (tiny) was asked for a message" in message
        and f"status {status}" in message
    )


@pytest.mark.parametrize("given, told", [(None, "OPENAI_API_KEY: it is not set"), ("wrong-key", "was not taken")])
def test_a_key_that_is_missing_or_wrong_is_told_without_it(monkeypatch, given, told):
    if given:
        monkeypatch.setenv("OPENAI_API_KEY", given)
    with answering(key=KEY) as server:
        for call in (EndpointClient.check, lambda client: client.complete(BODY)):
            with pytest.raises(RemoteMemberError, match=told) as caught:
                call(EndpointClient(remote_agent(server)))
            assert "wrong-key" not in str(caught.value) and "Incorrect API key" in str(caught.value)


def test_a_key_that_cannot_be_sent_is_not_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\nhunter2")
    with answering() as server, pytest.raises(RemoteMemberError, match="has characters that no key has") as caught:
        EndpointClient(remote_agent(server)).complete(BODY)
    assert "hunter2" not in str(caught.value)


def test_an_endpoint_that_is_not_there_is_named_and_so_is_what_to_do(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with answering() as server:
        agent = remote_agent(server)
    for call in (EndpointClient.check, lambda client: client.complete(BODY)):
        with pytest.raises(
            RemoteMemberError, match=f"The endpoint {server.url} .* cannot be reached.*Is it up"
        ) as caught:
            call(EndpointClient(agent))
        assert KEY not in str(caught.value) and caught.value.__cause__ is None and "resumed" in str(caught.value)


def test_an_answer_that_is_late_is_asked_for_again(caplog):
    with answering(delays=[0.5]) as server:
        client = EndpointClient(remote_agent(server, endpoint_timeout=0.2))
        assert text_of(client.complete(BODY)) == text_of(server.complete(BODY))
    assert not server.delays and "Read timed out" in caplog.text


def test_an_endpoint_without_a_list_of_models_is_taken_as_it_is():
    with answering(has_models=False) as server:
        EndpointClient(remote_agent(server)).check()


def test_an_address_of_something_else_is_told():
    with answering(answers=[["no", "object"]]) as server:
        with pytest.raises(RemoteMemberError, match="what is no chat completion: .*no.*object"):
            EndpointClient(remote_agent(server)).complete(BODY)
