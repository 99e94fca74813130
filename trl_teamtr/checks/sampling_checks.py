"""Checks that the algorithm supports how agents sample."""

import warnings
from collections.abc import Sequence

from ..agents.agent import Agent
from ..agents.member_args import agent_args
from ..agents.settings import SamplingSettings
from ..teamtr_config import TeamTRConfig
from ..tools import Environments
from ..tools.worlds import NEVER, REBUILD


# Keys of `generation_kwargs` for how `generate` computes, not for what it samples from
NO_TRANSFORMS = (
    *("use_cache", "cache_implementation", "cache_config", "compile_config", "disable_compile"),
    *("prefill_chunk_size", "pad_token_id", "max_new_tokens"),
)
# Keys for when it stops: drafts are not verified against these, but the tokens until then come from the policy
STOPS = ("eos_token_id",)


def check_sampling(args: TeamTRConfig, agents: Sequence[Agent], environments: Environments | None = None):
    """
    Raise unless the resampling mode and the KL estimator support how each of `agents` samples, and the environments of its rollouts.

    Raises:
        `ValueError`: Names the agent, and the transform by which it samples from a distribution other than the one
            whose log-probabilities are compared.
    """
    _check_environments(args, environments)
    _check_forgetting(args, agents)
    exact = []
    for agent in agents:
        if agent.is_remote:  # nothing of it is scored
            continue
        own = agent_args(args, agent, lead=False)
        _check_verification(own, agent.name)
        if agent.trainable:  # probabilities of a frozen agent's messages are not compared
            _check_truncation(own, agent)
            _check_correction(args, own, agent.name)
            if own.kl_estimator is None and choose_estimator(own, agent.radius_in(args)) == "exact":
                exact.append(f"{agent.name!r} ({', '.join(_all_transforms(own))})")
    if exact:
        warnings.warn(
            f"The KL is measured with `kl_estimator='exact'` for {', '.join(exact)}: k3 is biased for such samples.",
            stacklevel=4,
        )


def _check_verification(args: TeamTRConfig, name: str):
    other = _other_transforms(args)
    if args.resampling == "speculative" and other:
        raise ValueError(
            f"Agent {name!r} samples with {', '.join(other)}, but `resampling='speculative'` supports only "
            "temperature, top-k, top-p and min-p. Use `resampling='suffix'`, or drop it."
        )


def _check_truncation(args: TeamTRConfig, agent: Agent):
    used = _all_transforms(args)
    if used and args.resampling == "importance":
        raise ValueError(
            f"Agent {agent.name!r} samples with {', '.join(used)}, but `resampling='importance'` weighs messages by their "
            "probability under the untransformed policy (any temperature). Drop it, or use another mode."
        )
    if used and args.log_certificate:
        raise ValueError(
            f"Agent {agent.name!r} samples with {', '.join(used)}, but "
            "`log_certificate` weighs messages by their probability under the untransformed policy (any temperature), and "
            "its bound holds for nothing else. Drop it, or leave `log_certificate=False`."
        )
    if used and args.kl_estimator == "k3" and agent.radius_in(args) is not None:
        raise ValueError(
            f"Agent {agent.name!r} samples with {', '.join(used)}, but `kl_estimator='k3'` is unbiased only for samples of "
            "the untransformed policy (any temperature). Leave it out, use `kl_estimator='exact'`, or drop the transform."
        )


def _check_correction(args: TeamTRConfig, own: TeamTRConfig, name: str):
    used = _all_transforms(own)
    if used and args.use_vllm and args.vllm_importance_sampling_correction:
        raise ValueError(
            f"Agent {name!r} samples with {', '.join(used)}, but `vllm_importance_sampling_correction=True` (the default) compares "
            "the log-probabilities of vLLM, which are those after such a truncation, with those before it. Set it to `False`, or "
            "drop the transform."
        )


def choose_estimator(args: TeamTRConfig, radius: float | None) -> str:
    """
    `args.kl_estimator`, or by default the cheaper one of those that are unbiased for the agent's samples.

    Args:
        args ([`TeamTRConfig`]): The agent's own.
        radius (`float`, *optional*): Of the agent. Without one nothing is decided by the KL.
    """
    if args.kl_estimator is not None:
        return args.kl_estimator
    return "exact" if radius is not None and _all_transforms(args) else "k3"


def _all_transforms(args: TeamTRConfig) -> list[str]:
    """Sampling transforms other than the temperature, which log-probabilities do not include."""
    truncations = {
        "top_p": args.top_p < 1.0,
        "top_k": args.top_k is not None and args.top_k > 0,
        "min_p": args.min_p is not None and args.min_p > 0,
        "repetition_penalty": args.repetition_penalty != 1.0,
    }
    used = [f"{key}={getattr(args, key)}" for key, on in truncations.items() if on]
    return list(dict.fromkeys([*used, *_other_transforms(args, (*NO_TRANSFORMS, *STOPS))]))


def _check_environments(args: TeamTRConfig, environments: Environments | None):
    """Raise `ValueError` if rollouts would be resampled, or part, on environments whose earlier state nobody can find again."""
    if args.advantage_group == "turn":
        check_branching(environments, "`advantage_group='turn'`")
    if environments is not None and environments.kind == NEVER and args.resampling in ("suffix", "speculative"):
        raise ValueError(
            f"`resampling={args.resampling!r}` continues rollouts where they change, but an environment does not say how the state is "
            "found that it had there. Give its class the methods `snapshot()` and `restore(state)`; or `deterministic = True`, if the "
            "same calls after the same `reset` have the same results; or `deterministic = False`, if calls may be executed again "
            "with others. Or use `resampling='full'`."
        )


def _check_forgetting(args: TeamTRConfig, agents: Sequence[Agent]):
    """Raise `ValueError` if all messages of an agent would be weighed, of which some are context, and not scored."""
    forgetful = [agent.name for agent in agents if not agent.keep_thoughts]
    used = [name for name in ("log_certificate", "log_occupancy") if getattr(args, name)]
    used = ["resampling='importance'"] * (args.resampling == "importance") + used
    if forgetful and used:
        raise ValueError(
            f"Agent {forgetful[0]!r} has `keep_thoughts=False`, so that of each rollout only its last message is scored, but `{used[0]}` "
            "weighs all. Leave one out."
        )


def check_branching(environments: Environments | None, what: str):
    """
    Raise unless rollouts can part after a common beginning.

    Args:
        environments ([`Environments`], *optional*): Those on which they act.
        what (`str`): What needs that.

    Raises:
        `ValueError`: If nobody can find the state again that an environment had there.
    """
    if environments is not None and environments.kind in (NEVER, REBUILD):
        raise ValueError(
            f"{what} lets rollouts part after a common beginning, but an environment does not say how the state is found that it had "
            "there. Give its class the methods `snapshot()` and `restore(state)`; or `deterministic = True`, if the same calls after "
            "the same `reset` have the same results. Calls that are executed again with other results are another beginning. Or do "
            "without it."
        )


def choose_resampling(args: TeamTRConfig, agents: Sequence[Agent], environments: Environments | None = None) -> str:
    """`args.resampling`, or by default the cheapest mode that samples from the updated team."""
    if args.resampling is not None:
        return args.resampling
    if environments is not None and environments.kind == NEVER:
        return "full"
    speculative = args.disable_dropout and args.resample_every == 1 and can_be_verified(args, agents)
    return "speculative" if speculative and sum(agent.trainable for agent in agents) > 1 else "full"


def can_be_verified(args: TeamTRConfig, agents: Sequence[Agent]) -> bool:
    """Whether drafts can be verified against the distribution that messages are sampled from."""
    here = [agent for agent in agents if not agent.is_remote]
    return not any(_other_transforms(agent_args(args, agent, lead=False)) for agent in here)


def _other_transforms(args: TeamTRConfig, harmless: tuple[str, ...] = NO_TRANSFORMS) -> list[str]:
    """Sampling transforms that verification does not support."""
    found = [f"repetition_penalty={args.repetition_penalty}"] if args.repetition_penalty != 1.0 else []
    given = (SamplingSettings.of(args).generation_kwargs or {}).items()
    return found + [
        f"{key}={value}" for key, value in given if key not in harmless and (key, value) != ("do_sample", True)
    ]
