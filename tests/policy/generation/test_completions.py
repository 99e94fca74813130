"""What a message is as a request, what is read of the answer, and which sampling no server does alike."""

import pytest

from trl_teamtr.agents.settings import SamplingSettings
from trl_teamtr.policy.backend import Request, Written
from trl_teamtr.policy.generation.completions import check_sampling, is_untruncated, make_payload, read_answer


REQUEST = Request("x", [0, 2], 3)
PLAIN = SamplingSettings()


def answer(ids, logps=None, reason="stop"):
    logps = [-0.5] * len(ids) if logps is None else logps
    return {"choices": [{"token_ids": ids, "logprobs": {"token_logprobs": logps}, "finish_reason": reason}]}


def test_a_request_has_its_own_limit_seed_and_ends():
    payload = make_payload("run-x-v1", REQUEST, SamplingSettings(temperature=0.7, top_k=5), [1, 4], 11)
    assert payload["model"] == "run-x-v1" and payload["prompt"] == [0, 2] and payload["max_tokens"] == 3
    assert payload["seed"] == 11 and payload["n"] == 1
    assert payload["ignore_eos"] and payload["stop_token_ids"] == [1, 4]
    assert (payload["temperature"], payload["top_k"], payload["top_p"], payload["min_p"]) == (0.7, 5, 1.0, 0.0)


def test_an_answer_is_the_ids_and_what_they_were_sampled_with():
    assert read_answer(answer([2, 1]), REQUEST, PLAIN, [1]) == Written([2, 1], [-0.5, -0.5])
    assert read_answer(answer([2, 2, 2], reason="length"), REQUEST, PLAIN, [1]).ids == [2, 2, 2]


@pytest.mark.parametrize("fields", [{"top_k": 2}, {"top_p": 0.9}, {"min_p": 0.1}, {"repetition_penalty": 1.1}])
def test_what_a_truncated_law_says_of_a_message_is_not_of_the_policy(fields):
    sampling = SamplingSettings(**fields)
    assert not is_untruncated(sampling) and is_untruncated(SamplingSettings(temperature=0.3, top_k=None))
    assert read_answer(answer([2, 1]), REQUEST, sampling, [1]).logps is None


@pytest.mark.parametrize(
    "given", [answer([2, 2], reason="length"), answer([]), answer([2] * 4), answer([2, 1], [-0.5])]
)
def test_an_answer_that_ends_early_or_late_is_an_error(given):
    with pytest.raises(ValueError, match=r"'x' was to write 3 tokens.*context of 2.*`--max-model-len`"):
        read_answer(given, REQUEST, PLAIN, [1])


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"generation_kwargs": {"min_tokens": 2}},
            "'x' has `generation_kwargs` with min_tokens=2, which are arguments",
        ),
        ({"generation_kwargs": {"do_sample": False}}, "with do_sample=False"),
        ({"min_p": 0.1, "top_p": 0.9}, "min_p=0.1 and top_p=0.9. vLLM applies min-p first .* Use one of the two"),
        ({"temperature": 0.0}, "'x' has temperature=0.0, with which vLLM does not sample"),
    ],
)
def test_what_a_server_samples_otherwise_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        check_sampling("x", SamplingSettings(**fields))


def test_what_changes_no_message_is_not_refused():
    harmless = {"eos_token_id": 2, "use_cache": True, "do_sample": True}
    check_sampling("x", SamplingSettings(top_k=3, top_p=0.9, generation_kwargs=harmless))
    check_sampling("x", SamplingSettings(top_k=3, min_p=0.1))
