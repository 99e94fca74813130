"""An OpenAI-compatible endpoint without a company: chat completions of a tiny model, whose law is known, in a thread."""

import contextlib
import json
import math
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import tiny
import torch
from fake_vllm import Listener
from tiny import make_model, make_tokenizer

from trl_teamtr import Agent, Message
from trl_teamtr.conversation.turn_rendering import END
from trl_teamtr.policy.remote.endpoint import EndpointClient


KEY = "sk-this-is-the-key-0123456789"


@dataclass
class FakeEndpoint:
    """
    One endpoint. It writes messages of at most two tokens, and draws by the seed of a request.

    Args:
        seed: Of its model.
        key: What requests must have, if anything.
        dies_after: Number of completions after which it drops all connections.
        failures: Statuses with which the next requests are answered, each with its headers.
        answers: What it says to the next completions, in place of its model: whole bodies.
        delays: Seconds that each of the next completions takes.
        has_models: Whether it lists its models.

    Attributes:
        bodies: The bodies of the completions that were asked for.
        headers: The headers of all requests.
    """

    seed: int = 9
    key: str | None = None
    dies_after: int | None = None
    failures: list = field(default_factory=list)
    answers: list = field(default_factory=list)
    delays: list = field(default_factory=list)
    has_models: bool = True
    bodies: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    laws: dict = field(default_factory=dict)

    def __post_init__(self):
        self.lock = threading.Lock()
        self.tokenizer, self.model = make_tokenizer(), make_model(seed=self.seed).eval()
        self.http = Listener(("127.0.0.1", 0), make_handler(self))
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    @property
    def is_dead(self) -> bool:
        return self.dies_after is not None and len(self.bodies) > self.dies_after

    @torch.no_grad()
    def law(self, messages: list[dict], temperature: float = 1.0) -> dict[tuple[str, str], float]:
        """The probability of each answer: its text, and the reason why it ends."""
        text = "".join(f"{message['role']}:{message['content']}\n" for message in messages)
        if (text, temperature) not in self.laws:
            context, found = self.tokenizer(text)["input_ids"], {}

            def probabilities(ids):
                return (self.model(torch.tensor([ids])).logits[0, -1].double() / temperature).softmax(-1).tolist()

            for first, p in enumerate(probabilities(context)):
                if first == 1:
                    found["", "stop"] = p
                    continue
                for second, q in enumerate(probabilities([*context, first])):
                    letters = self.tokenizer.decode([first, second], skip_special_tokens=True)
                    found[letters, "stop" if second == 1 else "length"] = p * q
            self.laws[text, temperature] = found
        return self.laws[text, temperature]

    def complete(self, body: dict) -> dict:
        law = self.law(body["messages"], body.get("temperature", 1.0))
        draw = random.Random(body["seed"]) if "seed" in body else random.Random()
        (text, reason) = draw.choices(list(law), list(law.values()))[0]
        message = {"role": "assistant", "content": text}
        tokens = len(text) + (reason == "stop")
        return {
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1},
        }

    def post(self, body: dict) -> tuple[int, dict, dict]:
        self.bodies.append(body)
        if self.failures:
            status, headers = self.failures.pop(0)
            return status, headers, {"error": {"message": f"It is {status}."}}
        return 200, {}, self.answers.pop(0) if self.answers else self.complete(body)


def make_handler(server: FakeEndpoint) -> type:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept
        wbufsize = -1  # headers and body in one packet: two would wait for an acknowledgement
        disable_nagle_algorithm = True

        def log_message(self, *args):
            pass

        def do_GET(self):
            known = self.path == "/v1/models" and server.has_models
            self.answer(lambda: (200, {}, {"data": [{"id": "tiny"}]}) if known else (404, {}, {"detail": "Not Found"}))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if server.delays:
                time.sleep(server.delays.pop())
            known = self.path == "/v1/chat/completions"
            self.answer(lambda: server.post(body) if known else (404, {}, {"detail": "Not Found"}))

        def answer(self, call):
            given = self.headers.get("Authorization")
            with server.lock:
                server.headers.append(dict(self.headers))
                if server.key is not None and given != f"Bearer {server.key}":
                    # As OpenAI does, which shows a part of the key
                    status, headers, content = 401, {}, {"error": {"message": f"Incorrect API key: {given}"}}
                else:
                    status, headers, content = call()
                if server.is_dead:
                    self.close_connection = True
                    return
            data = json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that did not wait
                self.wfile.write(data)
                self.wfile.flush()

    return Handler


@contextlib.contextmanager
def answering(**fields) -> Iterator[FakeEndpoint]:
    server = FakeEndpoint(**fields)
    try:
        yield server
    finally:
        server.close()


def enumerate_with(server: FakeEndpoint, name: str, monkeypatch, temperature: float = 1.0):
    """From now on, `tiny.enumerate_rollouts` knows the messages of remote member `name`, which `server` writes."""
    context_of, messages_of = tiny.context_of, tiny.messages_of

    def contexts(trainer, prompt, agent, said):
        return turns_of(name, prompt, said) if agent == name else context_of(trainer, prompt, agent, said)

    def messages(trainer, model, agent, context, cache):
        if agent != name:
            return messages_of(trainer, model, agent, context, cache)
        law = server.law(context, temperature)
        return [
            (Message(name, text, (*text.encode(), END), reason == "stop"), math.log(p))
            for (text, reason), p in law.items()
        ]

    monkeypatch.setattr(tiny, "context_of", contexts)
    monkeypatch.setattr(tiny, "messages_of", messages)


def turns_of(name: str, prompt: str, said: list[Message]) -> list[dict]:
    """What a remote member reads, written down here a second time: turns as documented."""
    turns, text = [], prompt
    for message in said:
        if message.agent == name:
            turns += [{"role": "user", "content": text}, {"role": "assistant", "content": message.text}]
            text = ""
        else:
            text += ("\n\n" if text else "") + f"{message.agent}: {message.text}"
    turns.append({"role": "user", "content": text})
    return [turn for turn in turns if turn["content"] or turn["role"] == "assistant"]


def answer_directly(server: FakeEndpoint, monkeypatch):
    """Without HTTP, for tests of many messages."""
    monkeypatch.setattr(EndpointClient, "complete", lambda self, body: server.post(body)[2])


def remote_agent(server: FakeEndpoint, name: str = "y", **fields) -> Agent:
    return Agent(name, endpoint=server.url, model="tiny", **fields)
