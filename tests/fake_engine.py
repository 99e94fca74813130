"""vLLM in this process without vLLM: the calls that a team makes of `vllm.LLM`, answered by transformers and PEFT."""

import copy
import os
import random
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from fake_vllm import transform
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, set_seed

from trl_teamtr.policy.generation import vllm_package


@dataclass
class FakeSamplingParams:
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    ignore_eos: bool
    stop_token_ids: list
    n: int
    seed: int
    logprobs: int
    detokenize: bool


@dataclass
class FakeLoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


def load_model(path: str) -> torch.nn.Module:
    """A model that is whole under ZeRO-3 too, where `from_pretrained` would shard it; vLLM has classes of its own."""
    config = AutoConfig.from_pretrained(path)
    model = AutoModelForCausalLM._model_mapping[type(config)](config)
    model.load_state_dict(load_file(os.path.join(path, "model.safetensors")))
    return model.float().eval()


class FakeLLM:
    """
    One engine.

    Attributes:
        made: All that were made since [`fake_engines`], in order. What follows is set on the class, for those made later.
        mixes_rows: Whether it computes rows without an adapter with one that it holds, as vLLM's CPU build may (vllm#48421).
        wrong_adapter: Whether it takes adapters and answers with its base.
        flatter: What it multiplies logits with, as if it computed otherwise than the trainer.
        forgets: Whether it comes back from sleep with other weights (vllm#39934).
        loads: Names of the adapters that were loaded. reloads: number of times that weights were replaced.
        held: The most adapters that it held at a time. batches: the names of the adapters of each batch, `None` for its model.
        naps: Number of times that it slept.
    """

    made: list["FakeLLM"] = []
    mixes_rows = wrong_adapter = forgets = False
    flatter = 1.0

    def __init__(self, model, seed, **arguments):
        set_seed(seed)  # as vLLM does
        assert os.environ["WORLD_SIZE"] and os.environ["RANK"] and os.environ["MASTER_PORT"] != ""
        self.model_path, self.arguments, self.environment = model, arguments, dict(os.environ)
        self.base = load_model(model)
        self.llm_engine = self
        self.asleep, self.naps, self.reloads, self.held = False, 0, 0, 0
        self.adapters, self.paths, self.loads, self.batches = {}, {}, [], []
        self.seeds: list[int] = []
        self.cache: dict[tuple, torch.Tensor] = {}
        self.made.append(self)

    def versions(self, name: str) -> list[str]:
        """The names under which an agent's adapter was loaded."""
        return [loaded for loaded in self.loads if f"-{name}-v" in loaded]

    # Adapters

    def add_lora(self, request: FakeLoRARequest) -> bool:
        assert not self.asleep and self.arguments["enable_lora"]
        if request.lora_int_id in self.adapters:  # a number is looked up before a path
            return False
        if not os.path.isfile(os.path.join(request.lora_path, "adapter_config.json")):
            raise ValueError(f"Loading lora {request.lora_name} failed: No adapter found for {request.lora_path}")
        with torch.random.fork_rng(devices=[]):
            model = PeftModel.from_pretrained(copy.deepcopy(self.base), request.lora_path).eval()
        rank = model.peft_config["default"].r
        assert rank <= self.arguments["max_lora_rank"]
        self.adapters[request.lora_int_id] = self.base if self.wrong_adapter else model
        self.paths[request.lora_int_id] = (request.lora_name, request.lora_path)
        self.loads.append(request.lora_name)
        self.held = max(self.held, len(self.adapters))
        assert self.held <= self.arguments["max_loras"]
        return True

    def remove_lora(self, number: int) -> bool:
        assert not self.asleep
        self.paths.pop(number)
        return self.adapters.pop(number, None) is not None

    def list_loras(self) -> set[int]:
        return set(self.adapters)

    # Whole weights

    def collective_rpc(self, method, kwargs):
        assert method == "reload_weights" and not self.asleep
        random.random()
        np.random.rand()
        torch.rand(1)
        given = {name: weight.clone() for name, weight in kwargs["weights_iterator"]}
        missing, unexpected = self.base.load_state_dict(given, strict=False)
        assert not unexpected and set(missing) <= {"lm_head.weight"}
        self.reloads += 1
        return [None]

    def reset_prefix_cache(self):
        self.cache.clear()
        return True

    # Sleep

    def sleep(self, level):
        assert level == 1 and not self.asleep and self.arguments["enable_sleep_mode"]
        self.asleep, self.naps = True, self.naps + 1
        self.cache.clear()

    def wake_up(self):
        assert self.asleep
        self.asleep = False
        for model in [self.base] if self.forgets else []:
            torch.nn.init.zeros_(model.get_input_embeddings().weight)

    # Messages

    @torch.no_grad()
    def generate(self, prompts, params, lora_request, use_tqdm):
        assert not self.asleep and not use_tqdm and len(prompts) == len(params) == len(lora_request)
        random.random()
        np.random.rand()
        torch.rand(1)
        self.batches.append([None if lora is None else lora.lora_name for lora in lora_request])
        return [self._answer(*each) for each in zip(prompts, params, lora_request, strict=True)]

    def _answer(self, prompt, params, lora):
        assert isinstance(params, FakeSamplingParams) and params.ignore_eos and params.n == 1 and not params.detokenize
        ids, new, logps = list(prompt["prompt_token_ids"]), [], []
        key = ("", "") if lora is None else (lora.lora_name, lora.lora_path)
        model = self.base if lora is None else self.adapters[lora.lora_int_id]
        if self.mixes_rows and lora is None and self.adapters:
            model = next(iter(self.adapters.values()))
        room = (self.arguments["max_model_len"] or 128) - len(ids)
        if room < 1:
            raise ValueError(f"The prompt has {len(ids)} tokens, the longest context {room + len(ids)}.")
        self.seeds.append(params.seed)
        generator = torch.Generator().manual_seed(params.seed)
        for _ in range(min(params.max_tokens, room)):  # in silence, as vLLM
            logits = transform(self.flatter * self._logits(model, (*key, *ids, *new)), vars(params))
            new.append(int(torch.multinomial(logits.softmax(-1), 1, generator=generator)))
            logps.append(float(logits.log_softmax(-1)[new[-1]]))
            if new[-1] in params.stop_token_ids:
                break
        reason = "stop" if new[-1] in params.stop_token_ids else "length"
        found = [{token: SimpleNamespace(logprob=logp)} for token, logp in zip(new, logps, strict=True)]
        choice = SimpleNamespace(token_ids=new, logprobs=found, finish_reason=reason)
        return SimpleNamespace(prompt_token_ids=ids, outputs=[choice])

    def _logits(self, model, key):
        """Of the next token, cached by the name and the path of the adapter, as prefixes are in vLLM, but by nothing else."""
        if key not in self.cache:
            self.cache[key] = model(torch.tensor([key[2:]])).logits[0, -1]
        return self.cache[key]


FAKE = vllm_package.Vllm(FakeLLM, FakeSamplingParams, FakeLoRARequest)


def fake_engines(monkeypatch) -> type[FakeLLM]:
    """From now on, vLLM in this process is the fake one."""
    monkeypatch.setattr(vllm_package, "find_vllm", lambda: FAKE)
    monkeypatch.setattr(FakeLLM, "made", [])
    return FakeLLM
