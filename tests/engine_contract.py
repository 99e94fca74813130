"""What a team relies on in a vLLM engine in its process: one list, for the fake one and for real ones."""

import os
import random

import numpy as np
import torch

from trl_teamtr.agents.settings import SamplingSettings
from trl_teamtr.policy.backend import Request
from trl_teamtr.policy.generation.completions import sampling_fields
from trl_teamtr.policy.generation.engine import Engine


def random_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def make_engine(arguments: dict, accelerator) -> Engine:
    """An engine; neither the random states of the process nor its environment are changed by it."""
    random.seed(11)
    np.random.seed(11)
    torch.manual_seed(11)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "VLLM_ENABLE_V1_MULTIPROCESSING")
    before, there = random_states(), {name: os.environ.get(name) for name in names}
    engine = Engine(arguments, accelerator)
    assert random_states() == before and {name: os.environ.get(name) for name in names} == there
    return engine


def ask(engine: Engine, adapters: list[str | None], contexts=([2], [0, 2]), seed: int = 0, tokens: int = 6, **fields):
    """Samples after each of `contexts`, without an end, with each of `adapters`."""
    asked = [(context, adapter) for context in contexts for adapter in adapters]
    own = [
        sampling_fields(Request("x", context, tokens), SamplingSettings(**fields), [], seed + row)
        for row, (context, _) in enumerate(asked)
    ]
    return engine.generate([context for context, _ in asked], own, [adapter for _, adapter in asked])


def largest_difference(model, context: list[int], sampled) -> float:
    """Of the log-probabilities of an engine and of `model`, in nats."""
    with torch.no_grad():
        logps = model(torch.tensor([context + sampled.ids])).logits[0].log_softmax(-1)[len(context) - 1 : -1]
    found = logps.gather(1, torch.tensor(sampled.ids)[:, None])[:, 0]
    return (torch.tensor(sampled.logps) - found).abs().max().item()


def check_messages(engine: Engine, adapter: str | None):
    """Ids with their log-probabilities, up to and including a stop token; seeds decide, and nothing is drawn from the process."""
    before, ends = random_states(), set()
    fields = [sampling_fields(Request("x", [0, 2], 2), SamplingSettings(), [1], seed) for seed in range(40)]
    for found in engine.generate([[0, 2]] * 40, fields, [adapter] * 40):
        assert 1 <= len(found.ids) == len(found.logps) <= 2 and all(logp <= 0 for logp in found.logps)
        assert 1 not in found.ids[:-1] and (found.ids[-1] == 1 or len(found.ids) == 2)
        ends.add((len(found.ids), found.finish_reason))
    assert ends == {(1, "stop"), (2, "stop"), (2, "length")}
    first = ask(engine, [adapter] * 20)
    assert [found.ids for found in ask(engine, [adapter] * 20)] == [found.ids for found in first]
    assert len({tuple(found.ids) for found in first}) > 5  # equal contexts, other seeds
    assert any(1 in found.ids for found in first) and {len(found.ids) for found in first} == {6}
    assert random_states() == before
    # A context that leaves no room gets fewer tokens, and no error
    (short,) = ask(engine, [adapter], contexts=([2] * 126,))
    assert len(short.ids) == 2
    assert engine.generate([], [], []) == []


def check_adapters(engine: Engine, saved: dict[str, tuple[str, torch.nn.Module]]):
    """
    Adapters are told apart in one batch, replaced under new names, and forgotten.

    Args:
        engine: It has no adapter, and room for two.
        saved: By name two adapters: their folders, and models with them.
    """
    for name, (folder, _) in saved.items():
        engine.load_adapter(name, folder)
    assert engine.num_adapters == 2
    names, contexts = list(saved), [[2], [0, 2], [2] * 40]
    for _ in range(2):  # the second time prefixes are cached
        rows = iter(ask(engine, names, contexts))
        for context in contexts:
            for name in names:
                assert largest_difference(saved[name][1], context, next(rows)) < 1e-4
    for name, (folder, _) in saved.items():
        engine.unload_adapter(name)
        engine.load_adapter(f"{name}-again", folder)
        assert not engine.knows(name) and engine.num_adapters == 2
    (found,) = ask(engine, [f"{names[0]}-again"], contexts[:1])
    assert largest_difference(saved[names[0]][1], contexts[0], found) < 1e-4
    for name in names:
        engine.unload_adapter(f"{name}-again")
    assert engine.num_adapters == 0


def check_weights(engine: Engine, models: list[torch.nn.Module]):
    """An engine without adapters takes the weights of each of `models`, and forgets what it has cached of those before."""
    context = [2, 0] * 40
    for model in models:
        engine.reload_weights({name: weight.detach() for name, weight in model.named_parameters()}.items())
        for _ in range(2):
            (found,) = ask(engine, [None], [context])
            assert largest_difference(model, context, found) < 1e-4


def check_sleep(engine: Engine, folder: str, model: torch.nn.Module):
    """An engine that has slept is without adapters, and takes them again. Adapters that it had are forgotten."""
    engine.load_adapter("before", folder)
    engine.sleep()
    assert engine.is_asleep
    engine.wake()
    assert not engine.is_asleep and not engine.knows("before") and engine.num_adapters == 0
    engine.load_adapter("after", folder)
    (found,) = ask(engine, ["after"], [[2, 2]])
    assert largest_difference(model, [2, 2], found) < 1e-4
    engine.unload_adapter("after")
