"""A vLLM server without vLLM: the calls that a team makes of one, answered by transformers and PEFT in a thread."""

import contextlib
import copy
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


class Listener(ThreadingHTTPServer):
    request_queue_size = 512  # the default, 5, resets connections of a turn
    daemon_threads = True


def without_token(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return logits.masked_fill(mask, -torch.inf)


def transform(logits: torch.Tensor, body: dict) -> torch.Tensor:
    """vLLM's transforms of the logits of one position, in its order: temperature, min-p, top-k, top-p."""
    logits = logits / body["temperature"]
    probabilities = logits.softmax(-1)
    if body["min_p"]:
        logits = without_token(logits, probabilities < body["min_p"] * probabilities.max())
    if body["top_k"]:
        logits = without_token(logits, logits < logits.topk(body["top_k"]).values[-1])
    if body["top_p"] < 1.0:
        ordered, order = logits.sort()
        outside = ordered.softmax(-1).cumsum(-1) <= 1 - body["top_p"]
        outside[-1] = False
        logits = without_token(logits, outside.scatter(0, order, outside))
    return logits


@dataclass
class FakeServer:
    """
    One server.

    Args:
        model_path: The model that it serves.
        config: What its `/server_info` says otherwise than a server that was started for the team.
        dev_mode, lora_updating: Its environment.
        mixes_rows: Whether it computes rows without an adapter with one that it holds, as vLLM's CPU build may (vllm#48421).
        wrong_adapter: Whether it accepts adapters and serves its base.
        dies_after: Number of completions after which it drops all connections, once.
        restarts: Whether it then comes back, empty.
        delays: Seconds that each of the next completions takes.
        flatter: What it multiplies logits with, as if it computed otherwise than the trainer.

    Attributes:
        posts: The path and the body of each POST.
        held: The most adapters that it held at a time.
        missing: Names of adapters whose folder was gone when they were unloaded.
    """

    model_path: str
    config: dict = field(default_factory=dict)
    dev_mode: bool = True
    lora_updating: bool = True
    mixes_rows: bool = False
    wrong_adapter: bool = False
    dies_after: int | None = None
    restarts: bool = True
    delays: list = field(default_factory=list)
    flatter: float = 1.0
    posts: list = field(default_factory=list)
    held: int = 0
    missing: list = field(default_factory=list)
    adapters: dict = field(default_factory=dict)
    folders: dict = field(default_factory=dict)
    dead: bool = False
    completed: int = 0
    starts: int = 1

    def __post_init__(self):
        self.lock = threading.Lock()
        self.base = self._load(self.model_path)
        self.http = Listener(("127.0.0.1", 0), make_handler(self))
        self.port = self.http.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def _load(self, path):
        with torch.random.fork_rng(devices=[]):
            return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def die(self):
        """Forget everything and drop every connection, for a moment or for ever."""
        self.dead, self.dies_after = True, None
        self.adapters.clear()
        self.folders.clear()
        self.base = self._load(self.model_path)
        if self.restarts:
            threading.Timer(0.2, self.rise).start()

    def rise(self):
        self.starts += 1
        self.dead = False

    def sent(self, path: str) -> list[dict]:
        """The bodies of the POSTs to `path`."""
        return [body for where, body in self.posts if where == path]

    def versions(self, name: str) -> list[str]:
        """The names under which an agent's adapter was loaded."""
        return [body["lora_name"] for body in self.sent("/v1/load_lora_adapter") if f"-{name}-v" in body["lora_name"]]

    def info(self) -> dict:
        model = {
            "model": self.model_path,
            "max_model_len": 128,
            "logprobs_mode": "processed_logprobs",
            "generation_config": "vllm",
            "dtype": "torch.float32",
            "quantization": None,
        }
        found = {
            "model_config": model,
            "lora_config": {"max_lora_rank": 8, "max_loras": 8},
            "parallel_config": {"data_parallel_size": 1},
            "device_config": {"device": "cpu"},
            "scheduler_config": {"enable_chunked_prefill": False},
            "instance_id": str(self.starts),
        }
        for section, values in self.config.items():
            found[section] = values if values is None else {**found[section], **values}
        return {"vllm_config": found}

    def load_adapter(self, body: dict) -> tuple[int, dict]:
        if not os.path.isfile(os.path.join(body["lora_path"], "adapter_config.json")):
            return 404, {"error": {"message": f"Loading lora failed: No adapter found for {body['lora_path']}"}}
        assert body["lora_name"] not in self.adapters and body["load_inplace"] is False
        with torch.random.fork_rng(devices=[]):
            model = PeftModel.from_pretrained(copy.deepcopy(self.base), body["lora_path"]).eval()
        self.adapters[body["lora_name"]] = self.base if self.wrong_adapter else model
        self.folders[body["lora_name"]] = body["lora_path"]
        self.held = max(self.held, len(self.adapters))
        return 200, {}

    def unload_adapter(self, body: dict) -> tuple[int, dict]:
        if body["lora_name"] not in self.adapters:
            return 404, {"error": {"message": "The lora adapter cannot be found"}}
        if not os.path.isdir(self.folders.pop(body["lora_name"])):
            self.missing.append(body["lora_name"])
        del self.adapters[body["lora_name"]]
        return 200, {}

    @torch.no_grad()
    def complete(self, body: dict) -> tuple[int, dict]:
        model = self.base if body["model"] == self.model_path else self.adapters.get(body["model"])
        if self.mixes_rows and model is self.base and self.adapters:
            model = next(iter(self.adapters.values()))
        if model is None:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        assert body["ignore_eos"] and body["return_token_ids"] and body["repetition_penalty"] == 1.0
        generator = torch.Generator().manual_seed(body["seed"] % 2**63)
        ids, logps = list(body["prompt"]), []
        room = self.info()["vllm_config"]["model_config"]["max_model_len"] - len(ids)
        if room < 1:
            return 400, {"error": {"message": f"This model's maximum context length is {room + len(ids)} tokens."}}
        if max(ids) >= self.base.config.vocab_size:
            return 400, {"error": {"message": f"Token id {max(ids)} is out of vocabulary"}}
        for _ in range(min(body["max_tokens"], room)):  # in silence, as vLLM
            logits = transform(self.flatter * model(torch.tensor([ids])).logits[0, -1], body)
            ids.append(int(torch.multinomial(logits.softmax(-1), 1, generator=generator)))
            logps.append(float(logits.log_softmax(-1)[ids[-1]]))
            if ids[-1] in body["stop_token_ids"]:
                break
        new = ids[len(body["prompt"]) :]
        reason = "stop" if new and new[-1] in body["stop_token_ids"] else "length"
        choice = {"token_ids": new, "logprobs": {"token_logprobs": logps}, "finish_reason": reason}
        return 200, {"choices": [choice]}

    def get(self, path: str) -> tuple[int, dict]:
        if path == "/server_info" and self.dev_mode:
            return 200, self.info()
        if path == "/v1/load_lora_adapter" and self.lora_updating:
            return 405, {}
        if path == "/v1/models":
            return 200, {"data": [{"id": self.model_path}, *({"id": name} for name in self.adapters)]}
        if path == "/version":
            return 200, {"version": "fake"}
        return (200, {}) if path == "/health" else (404, {"detail": "Not Found"})

    def post(self, path: str, body: dict) -> tuple[int, dict]:
        if path == "/v1/completions":
            return self.complete(body)
        if path == "/v1/load_lora_adapter":
            return self.load_adapter(body)
        if path == "/v1/unload_lora_adapter":
            return self.unload_adapter(body)
        if path == "/collective_rpc":
            if body["method"] == "list_loras":
                return 200, {"results": [list(range(1, 1 + len(self.adapters)))]}
            if body["method"] != "reload_weights":
                return 500, {"error": {"message": f"Worker has no attribute '{body['method']}'"}}
            self.base = self._load(body["kwargs"]["weights_path"])
            return 200, {"results": [None]}
        return (200, {}) if path == "/reset_prefix_cache" else (404, {"detail": "Not Found"})


def make_handler(server: FakeServer) -> type:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            self.answer(lambda: server.get(self.path.split("?")[0]))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")

            def call():
                server.posts.append((self.path, body))
                if self.path == "/v1/completions":
                    server.completed += 1
                    if server.dies_after is not None and server.completed > server.dies_after:
                        server.die()
                return server.post(self.path, body)

            if self.path == "/v1/completions" and server.delays:
                time.sleep(server.delays.pop())
            self.answer(call)

        def answer(self, call):
            with server.lock:
                if server.dead:
                    return self.drop()
                status, content = call()
                if server.dead:
                    return self.drop()
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that did not wait
                self.wfile.write(data)

        def drop(self):
            self.close_connection = True

    return Handler


@contextlib.contextmanager
def serving(model_path, **fields) -> Iterator[FakeServer]:
    server = FakeServer(str(model_path), **fields)
    try:
        yield server
    finally:
        server.close()
