"""The plain backend: ids up to the end of a message, contexts of uneven lengths, nothing that outlasts a call."""

import pytest
import torch
from accelerate import Accelerator
from families import make_family
from tiny import make_model, make_tokenizer

from trl_teamtr.agents.settings import SamplingSettings
from trl_teamtr.policy.backend import PlainBackend, Request
from trl_teamtr.policy.policy import Policy


def requests(contexts, limits):
    return [Request("x", context, limit) for context, limit in zip(contexts, limits, strict=True)]


def sample(backend, contexts, limits):
    return [written.ids for written in backend.generate(requests(contexts, limits))]


def make_backend(eos_token_ids=(1,), cache_gib=None, **fields):
    model = make_model()
    policy, sampling = Policy(model, Accelerator()), SamplingSettings(**fields)
    return model, PlainBackend(policy, make_tokenizer(), list(eos_token_ids), sampling, cache_gib=cache_gib)


def test_messages_end_with_the_first_id_that_ends_one():
    _, backend = make_backend(eos_token_ids=(1, 2))
    torch.manual_seed(0)
    found = sample(backend, [[0], [0, 2, 0], [2, 2]] * 20, [4] * 60)
    assert len(found) == 60 and all(1 <= len(ids) <= 4 for ids in found)
    assert all(token not in (1, 2) for ids in found for token in ids[:-1])
    assert {1, 2} & {ids[-1] for ids in found}


def test_a_row_does_not_depend_on_the_rows_beside_it():
    _, backend = make_backend(top_k=1)
    contexts = [[0], [0, 2, 0, 2], [2, 2]]
    together = sample(backend, contexts, [5] * 3)
    assert together == [sample(backend, [context], [5])[0] for context in contexts]


def test_a_limit_is_for_one_call():
    model, backend = make_backend(top_k=1, max_completion_length=7)
    own = model.generation_config.to_dict()
    assert all(len(ids) <= 2 for ids in sample(backend, [[0], [2]], [2, 2]))
    assert backend.config.max_new_tokens == 7 and model.generation_config.to_dict() == own


def test_strings_that_stop_are_refused_when_the_backend_is_made():
    with pytest.raises(ValueError, match="`stop_strings` is not supported .* Give its id as `eos_token_id`"):
        make_backend(generation_kwargs={"stop_strings": ["."]})


def count_steps(monkeypatch, model):
    """How many forward passes each call of `generate` makes, the first over the contexts included."""
    steps, generate, forward = [], model.generate, model.forward

    def counting(*args, **kwargs):
        steps.append(0)
        return generate(*args, **kwargs)

    def stepping(*args, **kwargs):
        if steps:  # before, the size of the cache is measured
            steps[-1] += 1
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "generate", counting)
    monkeypatch.setattr(model, "forward", stepping)
    return steps


def test_each_row_has_a_limit_and_the_batch_ends_with_its_last_row(monkeypatch):
    model, backend = make_backend(eos_token_ids=(0,))  # padding is id 1, which may also be sampled
    contexts, limits = [[2, 1], [2], [2, 2, 2]] * 20, [1, 30, 5] * 20
    torch.manual_seed(0)
    found = sample(backend, contexts, limits)
    assert all(1 <= len(ids) <= limit for ids, limit in zip(found, limits, strict=True))
    assert all(len(ids) == limit or ids[-1] == 0 for ids, limit in zip(found, limits, strict=True))
    assert len({len(ids) for ids in found}) > 3
    steps = count_steps(monkeypatch, model)
    found = sample(backend, [[2], [2, 2]], [6, 2])
    assert steps == [max(map(len, found))]


def test_no_row_is_fed_beyond_the_longest_context(monkeypatch):
    model = make_family("gpt2", seed=0, n_positions=16).eval()  # its table of positions has 16 rows
    backend = PlainBackend(Policy(model, Accelerator()), make_tokenizer(), [15], SamplingSettings(), max_length=16)
    steps = count_steps(monkeypatch, model)
    found = sample(backend, [[3] * 15, [3], [3] * 8], [1, 15, 4])
    assert all(1 <= len(ids) <= limit for ids, limit in zip(found, [1, 15, 4], strict=True))
    assert len(steps) == 3


def test_no_batch_has_a_larger_cache_than_allowed_and_similar_rows_are_together(monkeypatch):
    per_token = 2 * 8 * 4  # keys and values of the only layer of the model, 8 wide, in float32
    contexts = [[2] * (1 + 7 * (i % 2)) for i in range(40)]  # of 1 and of 8 tokens
    model, backend = make_backend(cache_gib=48 * per_token / 2**30)
    generate, shapes = model.generate, []

    def watched(**kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))
        return generate(**kwargs)

    monkeypatch.setattr(model, "generate", watched)
    found = sample(backend, contexts, [4] * 40)
    assert shapes == [(4, 8)] * 5 + [(9, 1)] * 2 + [(2, 1)]
    assert len(found) == 40 and all(1 <= len(ids) <= 4 for ids in found)


def test_rows_of_a_batch_have_their_own_answers_when_several_are_needed():
    model, backend = make_backend(top_k=1, cache_gib=1e-7)
    contexts = [[0], [0, 2, 0, 2], [2, 2]] * 3
    assert sample(backend, contexts, [5] * 9) == sample(make_backend(top_k=1)[1], contexts, [5] * 9)


def test_a_process_without_rows_takes_part():
    _, backend = make_backend()
    assert sample(backend, [], []) == []


def test_messages_are_found_by_beam_search():
    _, backend = make_backend(generation_kwargs={"num_beams": 2})
    torch.manual_seed(0)
    found = sample(backend, [[0], [0, 2, 0], [2, 2]], [1, 2, 4])
    assert all(1 <= len(ids) <= limit for ids, limit in zip(found, [1, 2, 4], strict=True))


@pytest.mark.parametrize("fields", [{}, {"temperature": 0.6}, {"top_k": 3}, {"top_p": 0.8}, {"min_p": 0.2}])
def test_log_probabilities_are_those_of_the_policy_before_truncation(fields):
    model, backend = make_backend(**fields)
    contexts = [[0], [0, 2, 0], [2, 2]]
    torch.manual_seed(0)
    for context, written in zip(contexts, backend.generate(requests(contexts, [6, 2, 4])), strict=True):
        ids = torch.tensor([context + written.ids])
        with torch.no_grad():
            logps = (model(ids).logits[0] / fields.get("temperature", 1.0)).log_softmax(-1)
        scored = logps[len(context) - 1 : -1].gather(1, ids[0, len(context) :, None])[:, 0]
        assert len(written.logps) == len(written.ids)
        torch.testing.assert_close(torch.tensor(written.logps), scored, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fields", [{"repetition_penalty": 1.3}, {"generation_kwargs": {"num_beams": 2}}])
def test_log_probabilities_of_another_distribution_are_not_known(fields):
    backend = make_backend(**fields)[1]
    assert [written.logps for written in backend.generate(requests([[0], [2, 2]], [3, 3]))] == [None] * 2
