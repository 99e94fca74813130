"""A team behind a server of its own, on a free port of this machine."""

import contextlib
import threading
import time

import uvicorn
from tiny import make_model, make_tokenizer

from trl_teamtr import Agent, Team
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
from trl_teamtr.conversation.rules import TurnTaking
from trl_teamtr.serving.app import make_app
from trl_teamtr.serving.limits import ServerSettings


TEMPLATE = "{% for m in messages %}{{ m['content'] }}.{% endfor %}"


def make_chat_team(names="xy", max_completion_length=8, rounds=1) -> Team:
    """Tiny agents with a chat template, and room for 128 tokens."""
    tokenizer = make_tokenizer(4)
    tokenizer.chat_template = TEMPLATE
    agents = [Agent(name, make_model(4, seed), processing_class=tokenizer) for seed, name in enumerate(names)]
    settings = SpeakingSettings(SamplingSettings(max_completion_length=max_completion_length))
    team = Team.from_agents(agents, settings, TurnTaking(rounds))
    for speaker in team.speakers:
        speaker.policy.model.eval()
    return team


@contextlib.contextmanager
def serving(team: Team, **limits):
    """Context with the address of a server of `team`."""
    app = make_app(team, ServerSettings(**limits))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server has not started"
        time.sleep(0.01)
    (socket,) = [socket for each in server.servers for socket in each.sockets]
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


class Gate:
    """Holds up all messages of a team until it is opened: `with Gate(team): ...`."""

    def __init__(self, team: Team):
        self._speakers, self._open = team.speakers, threading.Event()
        self.calls = 0

    def __enter__(self) -> "Gate":
        self._backends = [speaker.backend for speaker in self._speakers]
        for speaker in self._speakers:
            speaker.backend = _Gated(self, speaker.backend)
        return self

    def wait(self):
        self.calls += 1
        assert self._open.wait(30)

    def open(self):
        self._open.set()

    def __exit__(self, *error):
        self.open()
        for speaker, backend in zip(self._speakers, self._backends, strict=True):
            speaker.backend = backend


class _Gated:
    def __init__(self, gate: Gate, backend):
        self._gate, self._backend = gate, backend

    def generate(self, requests):
        self._gate.wait()
        return self._backend.generate(requests)
