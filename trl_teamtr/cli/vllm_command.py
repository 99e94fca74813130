"""Prints, as its last line, the command that starts a vLLM server for the agents of a YAML file (scripts/serve_vllm.sh)."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from peft import LoraConfig
from transformers import AutoConfig
from transformers.utils import find_adapter_config_file
from trl import ModelConfig, TrlParser, get_peft_config

from ..agents.agent import Agent
from ..agents.resolving import resolve_team
from ..agents.settings import SpeakingSettings
from ..policy.generation import FleetSettings
from ..policy.generation.server_start import ServerStart
from ..policy.making import find_max_view_length
from ..teamtr_config import TeamTRConfig
from .arguments import TeamScriptArguments, set_model_init_kwargs
from .train import find_team


@dataclass
class CommandScriptArguments(TeamScriptArguments):
    """
    Arguments of the command, beside those of `train.py`, whose YAML files can be given as they are.

    Args:
        url (`str`, *optional*): Which of the team's servers. Defaults to that of the config.
        serve (`str`): What serves a model whose path follows.
    """

    url: str | None = field(default=None, metadata={"help": "Which of the team's servers."})
    serve: str = field(default="vllm serve", metadata={"help": "What serves a model whose path follows."})


def find_start(agents: Sequence[Agent], args: TeamTRConfig) -> ServerStart:
    """
    How to start a server for `agents`, by their settings and the configs of their models: no weights are read.

    Raises:
        `ValueError`: If their models, or the bases of their adapters, differ.
    """
    settings, bases, ranks, dtypes, lengths = (
        SpeakingSettings.of(args),
        set[str](),
        list[int](),
        list[str](),
        list[int](),
    )
    for agent in agents:
        base, peft_config = str(agent.model), cast(LoraConfig | None, agent.peft_config)
        if find_adapter_config_file(base) is not None:
            peft_config = LoraConfig.from_pretrained(base)
            base = str(peft_config.base_model_name_or_path)
        kwargs = settings.init_kwargs(agent)
        own = kwargs.pop("dtype", None) or "float32"  # in which TRL loads
        kwargs.pop("attn_implementation", None)
        config = AutoConfig.from_pretrained(base, **kwargs)
        bases.add(base)
        ranks += [] if peft_config is None else [peft_config.r]
        dtypes.append(str(config.dtype if own == "auto" else own).removeprefix("torch."))
        lengths.append(find_max_view_length(config, settings.max_context_length))
    if len(bases) > 1:
        raise ValueError(
            f"The agents {', '.join(repr(agent.name) for agent in agents)} share a server, but have the models "
            f"{', '.join(sorted(bases))}. Give each an agent's own `vllm_server_base_url`."
        )
    mixed = "bfloat16" if args.bf16 else "float16" if args.fp16 else None
    dtype = args.speaking_precision or mixed or dtypes[0]
    return ServerStart(bases.pop(), dtype, len(agents), ranks, max(lengths))


def find_command(agents: Sequence[Agent], args: TeamTRConfig, url: str | None, serve: str) -> list[str]:
    """
    The words of the command that starts the server at `url`, by default that of `args`: variables of the environment, what
    serves, and its flags.

    Raises:
        `ValueError`: If no agent uses `url`; the message lists the URLs that are used.
    """
    default = FleetSettings.of(args).url
    by_url: dict[str, list[Agent]] = {}
    for agent in (agent for agent in agents if not agent.is_remote):
        by_url.setdefault((agent.vllm_server_base_url or default).rstrip("/"), []).append(agent)
    chosen = (url or default).rstrip("/")
    if chosen not in by_url:
        raise ValueError(f"No agent speaks through {chosen}. The team's servers are {', '.join(sorted(by_url))}.")
    start, place = find_start(by_url[chosen], args), urlsplit(chosen)
    variables = [f"{name}={value}" for name, value in start.environment.items()]
    address = ["--host", place.hostname or "", "--port", str(place.port or 80)]
    return [*variables, *shlex.split(serve), start.model, *start.flags, *address]


def main(script_args, training_args, model_args):
    if training_args.use_vllm and training_args.vllm_mode == "colocate":
        raise ValueError(
            "The YAML file has `use_vllm: true` and `vllm_mode` 'colocate', TRL's default, with which a team needs no server. Set "
            "`vllm_mode: server`."
        )
    set_model_init_kwargs(training_args, model_args)
    team = resolve_team(find_team(script_args, training_args, model_args), training_args, get_peft_config(model_args))
    print(shlex.join(find_command(team, training_args, script_args.url, script_args.serve)))


if __name__ == "__main__":
    os.environ["CI"] = "1"
    dataclass_types: list[Any] = [CommandScriptArguments, TeamTRConfig, ModelConfig]
    main(*TrlParser(dataclass_types).parse_args_and_config(sys.argv[1:]))
