"""One message as a request to vLLM, to a server of OpenAI's API or to an engine in this process, and back."""

from collections.abc import Sequence
from typing import Any

from ...agents.settings import SamplingSettings
from ..backend import Request, Written


# Keys of `generation_kwargs` for how `generate` of transformers computes, which no server needs, and for when it stops
_OF_TRANSFORMERS = ("use_cache", "cache_implementation", "cache_config", "compile_config", "disable_compile")
_KNOWN = (*_OF_TRANSFORMERS, "prefill_chunk_size", "pad_token_id", "eos_token_id")


def check_sampling(name: str, sampling: SamplingSettings):
    """
    Raise unless a server samples from the distribution that `sampling` has with transformers.

    Raises:
        `ValueError`: Names the agent and the setting.
    """
    given = (sampling.generation_kwargs or {}).items()
    other = [f"{key}={value!r}" for key, value in given if key not in _KNOWN and (key, value) != ("do_sample", True)]
    if other:
        raise ValueError(
            f"Agent {name!r} has `generation_kwargs` with {', '.join(other)}, which are arguments of transformers' "
            "`generate`. With `use_vllm=True` there may be `temperature`, `top_p`, `top_k`, `min_p`, `repetition_penalty`, "
            "`max_completion_length` and `eos_token_id`. Drop the others, or leave `use_vllm=False`."
        )
    if sampling.min_p and sampling.top_p < 1.0:
        raise ValueError(
            f"Agent {name!r} samples with min_p={sampling.min_p} and top_p={sampling.top_p}. vLLM applies min-p first and "
            "transformers last, so that messages would be sampled from another distribution than they are verified "
            "against. Use one of the two, or leave `use_vllm=False`."
        )
    if sampling.temperature <= 0:
        raise ValueError(
            f"Agent {name!r} has temperature={sampling.temperature}, with which vLLM does not sample. Use a positive one."
        )


def is_untruncated(sampling: SamplingSettings) -> bool:
    """Whether messages are samples of the policy at its temperature, so that what they were sampled with is its own."""
    truncated = sampling.top_k or sampling.top_p < 1.0 or sampling.min_p
    return not truncated and sampling.repetition_penalty == 1.0


def refuse_own_draws(requests: Sequence[Request]):
    """Raise `ValueError` if a message is to be drawn apart from the others of its turn."""
    if any(request.draw is not None for request in requests):
        raise ValueError(
            "Messages cannot be drawn apart (`seed`, `greedy`, `stream`, a server of one's own) through vLLM. Save the team, and "
            "load it with `Team.from_pretrained`."
        )


def sampling_fields(
    request: Request, sampling: SamplingSettings, eos_token_ids: list[int], seed: int
) -> dict[str, Any]:
    """
    How vLLM samples one message: fields of a request to `/v1/completions`, and of `vllm.SamplingParams`.

    Args:
        request ([`Request`]): The message.
        sampling ([`SamplingSettings`]): How the agent samples.
        eos_token_ids (`list[int]`): Ids that end its messages.
        seed (`int`): Of this message alone: a seed for several would give equal prompts equal messages.
    """
    return {
        "max_tokens": request.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or 0,
        "min_p": sampling.min_p or 0.0,
        "repetition_penalty": sampling.repetition_penalty,
        # Those of the agent instead of those of the model that vLLM has
        "ignore_eos": True,
        "stop_token_ids": eos_token_ids,
        "n": 1,
        "seed": seed,
        "logprobs": 0,  # of the sampled token alone
    }


def make_payload(
    model: str, request: Request, sampling: SamplingSettings, eos_token_ids: list[int], seed: int
) -> dict[str, Any]:
    """
    The body of a request to `/v1/completions` for one message. `model` is the name under which the server knows the weights of
    the agent; the other arguments are those of [`sampling_fields`].
    """
    fields = sampling_fields(request, sampling, eos_token_ids, seed)
    return {"model": model, "prompt": request.context, "return_token_ids": True, **fields}


def read_answer(
    answer: dict[str, Any], request: Request, sampling: SamplingSettings, eos_token_ids: list[int]
) -> Written:
    """
    The message in a server's `answer` to `request`.

    Raises:
        `ValueError`: If it is longer than requested, or ends before it should.
    """
    (choice,) = answer["choices"]
    ids, logps = list(choice["token_ids"]), list(choice["logprobs"]["token_logprobs"])
    return read_message(ids, logps, request, sampling, eos_token_ids, choice.get("finish_reason"))


def read_message(
    ids: list[int],
    logps: list[float],
    request: Request,
    sampling: SamplingSettings,
    eos_token_ids: list[int],
    finish_reason: str | None,
) -> Written:
    """
    What vLLM has sampled for `request`, with the log-probabilities if they are those of the policy.

    Raises:
        `ValueError`: If it is longer than requested, or ends before it should.
    """
    whole = len(ids) == request.max_tokens or (bool(ids) and ids[-1] in eos_token_ids)
    if not whole or len(ids) > request.max_tokens or len(logps) != len(ids):
        raise ValueError(
            f"Agent {request.agent!r} was to write {request.max_tokens} tokens, or fewer up to one of {eos_token_ids}, after "
            f"a context of {len(request.context)}. vLLM returned {len(ids)} with {len(logps)} log-probabilities, "
            f"`finish_reason={finish_reason!r}`. If its context is too short, start a server with a larger "
            "`--max-model-len`, or set a larger `vllm_max_model_length` for engines in this process."
        )
    return Written(ids, logps if is_untruncated(sampling) else None)
