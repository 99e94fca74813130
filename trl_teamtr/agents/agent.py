"""Specification of one member of a team."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..options.team_options import check_radius
from ..teamtr_config import TeamTRConfig
from .remote import API_KEY_ENV, check_remote


if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl.trainer.grpo_trainer import RewardFunc


# A name becomes a directory, a metric and the tag in front of the agent's messages.
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

# Directories and files that a saved team or a checkpoint already uses.
RESERVED_NAMES: tuple[str, ...] = ("completions", "runs", "checkpoint", "README.md", "team.json", "trainer_state.json")
RESERVED_NAMES += ("manifest.json", "teamtr_run.json", "training_args.json", "rollouts.json", "tasks.json")
RESERVED_NAMES += ("bases", "log.jsonl", "report.html", "transcripts.jsonl", "replacements.jsonl")
RESERVED_PREFIXES = ("checkpoint-", "tmp-", "rng_state", "before_update_")

THOUGHTS = ("private", "shared")
TOOL_VISIBILITIES = ("caller", "all")

# With what stands before it while it is written, the name of a folder has at most 255 bytes
MAX_NAME = 200


@dataclass
class Agent:
    """
    One member of a team.

    Args:
        name (`str`):
            Name, unique in the team. Other agents see it in front of the agent's messages, and the agent is saved
            under it. Letters, digits, `_`, `-` and `.`.
        model (`str` or [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Model id on the hub, path to a directory with a model or an adapter, or a model. Agents that are given the
            same model and a `peft_config` share its weights in memory. With an `endpoint`, the name of the model there.
        system_prompt (`str`, *optional*):
            System prompt that only this agent sees.
        peft_config ([`~peft.PeftConfig`], *optional*):
            Train an adapter instead of the model.
        processing_class ([`~transformers.PreTrainedTokenizerBase`], *optional*):
            Tokenizer. Defaults to the one that comes with the model.
        learning_rate (`float`, *optional*):
            Learning rate of this agent. Defaults to `args.learning_rate`.
        trust_region_radius (`float`, *optional*):
            Radius δ of this agent, in nats per message. Defaults to `args.trust_region_radius`.
        trainable (`bool`, *optional*):
            Whether the agent is trained; `True` unless it has an `endpoint`. A frozen agent speaks and is never updated; it is loaded in the dtype of its
            checkpoint, unless `model_init_kwargs` has a `dtype`.
        generation_kwargs (`dict`, *optional*):
            Generation settings of this agent: any of `temperature`, `top_p`, `top_k`, `min_p`, `repetition_penalty`
            and `max_completion_length`, which override the fields of the config, or other arguments of
            [`~transformers.GenerationConfig`].
        chat_template_kwargs (`dict`, *optional*):
            Keyword arguments for the agent's chat template, e.g. `{"enable_thinking": False}`.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether to run code that comes with the agent's model. `args.trust_remote_code` allows it for the whole
            team. It is not saved and must be set again when a saved team is loaded.
        thoughts (`str`, *optional*, defaults to `"private"`):
            Who reads what the agent thinks before it answers, where its tokenizer or TRL knows how its chat template writes
            thoughts, or `thinking_end` says it. `"private"`: itself; the others, and the rewards, read the answer. `"shared"`:
            everybody. In a team of one nothing is divided.
        thinking_end (`str`, *optional*):
            Text that ends the agent's thoughts, e.g. `"</think>"`, for templates that TRL does not know.
        keep_thoughts (`bool`, *optional*, defaults to `True`):
            Whether the agent's history contains its own thoughts, as it sampled them. With `False` its chat template renders its
            earlier messages without them, when it speaks again. They are context then: of each rollout only its last message is
            scored and trained.
        tools (`list[Callable or str]`, *optional*):
            Functions that the agent may call within its messages, as in [`~trl.GRPOTrainer`]: with type hints and docstrings,
            sync or async; and names of methods of the team's environment. Defaults to the trainer's `tools` and all methods; an
            empty list for none. They need conversational prompts and a chat template that writes calls.
        environment_factory (`Callable`, *optional*):
            Makes an environment of this agent alone for each rollout, beside that of the team; its methods are tools of the
            agent. It is not saved.
        tool_visibility (`str`, *optional*, defaults to `"caller"`):
            Who reads the agent's calls and their results. `"caller"`: itself; the others read what it says in the end. `"all"`:
            everybody.
        reward_funcs (`RewardFunc` or `list[RewardFunc]`, *optional*):
            Rewards of this agent alone, as in [`~trl.GRPOTrainer`]. Its return is the team's plus their weighted sum. An
            evaluation scores the team's rewards alone. They are not saved.
        reward_weights (`list[float]`, *optional*):
            Their weights; 1 each if not given.
        vllm_server_base_url (`str`, *optional*):
            With `use_vllm=True, vllm_mode="server"`, the vLLM server of this agent. Defaults to that of the config, which
            agents with adapters on one base share. An agent that trains all its weights needs a server of its own. It is not
            saved.
        endpoint (`str`, *optional*):
            Address of an OpenAI-compatible API, such as `"https://api.openai.com/v1"`, whose chat completions speak for the
            agent. Such a remote member is frozen: its model is not here, and its log-probabilities are not known. Others read
            its messages as text. Of the config it takes the temperature, the truncations and the length of messages;
            `generation_kwargs` may have any field of the endpoint's requests, and `None` for one that is to be left out.
        api_key_env (`str`, *optional*, defaults to `"OPENAI_API_KEY"`):
            Environment variable with the key of the endpoint, which is sent nowhere else, and neither logged nor saved. If it is
            not set, none is sent.
        endpoint_timeout (`float`, *optional*, defaults to `120.0`):
            Seconds to wait for an answer of the endpoint, which is then asked again.
        endpoint_concurrency (`int`, *optional*, defaults to `16`):
            Number of requests that a process sends to the endpoint at a time.
        base_model (`dict`, *optional*):
            The `id` and the `revision` of what the weights of a saved agent were made from. [`load_team`] sets it.
        history (`list[dict]`, *optional*):
            The changes of members that its team has seen, in order. [`replace_member`] and [`load_team`] set it.

    Raises:
        `ValueError`: If the name cannot be a directory name, the radius is not positive, there are not as many weights as
            rewards, a frozen agent has rewards, `thoughts` or `tool_visibility` is unknown, shared thoughts are not kept, or an agent with an `endpoint` is given
            what needs a model here.
    """

    name: str
    model: "str | PreTrainedModel | PeftModel"
    system_prompt: str | None = None
    peft_config: "PeftConfig | None" = None
    processing_class: "PreTrainedTokenizerBase | None" = None
    learning_rate: float | None = None
    trust_region_radius: float | None = None
    trainable: bool = None  # type: ignore[assignment]  # never `None` once it is made
    generation_kwargs: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    trust_remote_code: bool = False
    thoughts: str = "private"
    thinking_end: str | None = None
    keep_thoughts: bool = True
    tools: list[Callable | str] | None = None
    tool_visibility: str = "caller"
    environment_factory: Callable | None = None
    reward_funcs: "RewardFunc | list[RewardFunc] | None" = None
    reward_weights: list[float] | None = None
    vllm_server_base_url: str | None = None
    endpoint: str | None = None
    api_key_env: str = API_KEY_ENV
    endpoint_timeout: float = 120.0
    endpoint_concurrency: int = 16
    base_model: dict[str, str | None] | None = field(default=None, compare=False, repr=False)
    history: list[dict[str, Any]] = field(default_factory=list, compare=False, repr=False)

    def __post_init__(self):
        if self.trainable is None:
            self.trainable = self.endpoint is None
        if not isinstance(self.name, str) or not NAME_PATTERN.fullmatch(self.name):
            raise ValueError(
                f"An agent's name must start with a letter or digit and contain only letters, digits, '_', '-' and "
                f"'.', since the agent is saved in a directory of that name. Got {self.name!r}."
            )
        if len(self.name) > MAX_NAME:
            raise ValueError(
                f"The name of an agent has at most {MAX_NAME} characters, since the agent is saved in a directory of that name. "
                f"{self.name[:20] + '...'!r} has {len(self.name)}."
            )
        if self.name in RESERVED_NAMES or self.name.startswith(RESERVED_PREFIXES):
            raise ValueError(
                f"The name {self.name!r} is taken by another part of a run's output directory. Choose another."
            )
        check_radius(self.trust_region_radius, f"agent {self.name!r}")
        self._check_rewards()
        if self.thoughts not in THOUGHTS:
            raise ValueError(
                f"Agent {self.name!r} has `thoughts={self.thoughts!r}`. It must be one of {', '.join(map(repr, THOUGHTS))}."
            )
        if self.thinking_end is not None and not (self.thinking_end and self.thoughts == "private"):
            raise ValueError(
                f"Agent {self.name!r} has `thinking_end={self.thinking_end!r}`, which divides private thoughts from answers. It "
                "must be a text such as '</think>', with `thoughts='private'`."
            )
        if self.thoughts == "shared" and not self.keep_thoughts:
            raise ValueError(
                f"Agent {self.name!r} has `keep_thoughts=False` and `thoughts='shared'`: what everybody reads, it reads too. Leave one "
                "out."
            )
        check_remote(self)

        if self.tool_visibility not in TOOL_VISIBILITIES:
            raise ValueError(
                f"Agent {self.name!r} has `tool_visibility={self.tool_visibility!r}`. It must be one of "
                f"{', '.join(map(repr, TOOL_VISIBILITIES))}."
            )
        unknown = [tool for tool in self.tools or [] if not (callable(tool) or isinstance(tool, str))]
        if unknown:
            raise ValueError(
                f"Agent {self.name!r} has the tool {unknown[0]!r}. A tool is a function, or the name of a method of the team's "
                "environment."
            )

    def _check_rewards(self):
        if self.reward_funcs is not None and not isinstance(self.reward_funcs, list):
            self.reward_funcs = [self.reward_funcs]
        if self.reward_weights is not None and len(self.reward_weights) != len(self.reward_funcs or []):
            raise ValueError(
                f"Agent {self.name!r} has {len(self.reward_funcs or [])} `reward_funcs` of its own, but "
                f"{len(self.reward_weights)} `reward_weights`. Give one for each, or none."
            )
        if self.reward_funcs is not None and not self.trainable:
            raise ValueError(
                f"Agent {self.name!r} has `trainable=False` and `reward_funcs` of its own, which only updates use. Leave one out."
            )
        if self.reward_funcs == []:
            self.reward_funcs = None

    @property
    def is_remote(self) -> bool:
        """Whether its model is behind an endpoint, and not here."""
        return self.endpoint is not None

    def radius_in(self, args: TeamTRConfig) -> float | None:
        """The agent's own radius, else the config's; `None` for no trust region."""
        return self.trust_region_radius if self.trust_region_radius is not None else args.trust_region_radius


def check_trainable(agents: Sequence[Agent]):
    """Raise `ValueError` unless `agents` is a team ([`check_names`]) of which at least one is trainable."""
    check_names(agents)
    if not any(agent.trainable for agent in agents):
        raise ValueError("No agent of the team is trainable. Leave `trainable=True` for at least one.")


def check_names(agents: Sequence[Agent]):
    """Raise `ValueError` unless `agents` is a non-empty list of agents with distinct names."""
    if not agents:
        raise ValueError("The team is empty. Pass at least one `Agent` in `model`.")
    for agent in agents:
        if not isinstance(agent, Agent):
            raise TypeError(
                f"A team is a list of `Agent`, got an element of type {type(agent).__name__}. Write "
                "`Agent('name', model)` for each member."
            )
    names = [agent.name for agent in agents]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise ValueError(f"Agent names must be distinct, but these occur more than once: {', '.join(duplicates)}.")
    folded = [name.lower() for name in names]
    alike = [name for name in names if folded.count(name.lower()) > 1]
    if alike:
        raise ValueError(
            f"The agent names {', '.join(alike)} differ in upper and lower case only, which not every file system tells "
            "apart, and the agents are saved in directories of their names. Rename one."
        )
