"""From what a user passes as `model` to a team of loaded models, and back to disk."""

import copy
import itertools
import json
import os
import warnings
from collections.abc import Sequence
from typing import Any

from accelerate.utils import DistributedType
from peft import PeftConfig, PeftModel
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import find_adapter_config_file
from trl.trainer.utils import create_model_from_path, get_config_model_id

from .agent import Agent, check_names
from .model_copies import clone_sharing_weights, copy_untouched
from .teamtr_config import TeamTRConfig


TEAM_FILE = "team.json"

# What `Agent.generation_kwargs` may set that is a field of the config: TRL reads the log-probabilities' temperature
# there, so that passing it to `generate` alone would sample from another law than the one that is trained.
CONFIG_FIELDS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_completion_length")

# What `team.json` says about an agent. `trust_remote_code` is not there: whoever loads a team decides that again.
SAVED_FIELDS = ("name", "system_prompt", "trainable", "learning_rate", "trust_region_radius")
SAVED_FIELDS += ("generation_kwargs", "chat_template_kwargs")


def resolve_team(model: Any, args: TeamTRConfig, peft_config: PeftConfig | None = None) -> list[Agent]:
    """
    The members of the team that `model` stands for.

    Args:
        model: A list of [`Agent`]; the directory of a saved team; or one model (id, path, model or `PeftModel`), for
            `args.num_agents` agents of the same kind, named `agent_1`, `agent_2`, ..., or a team of one named `agent`.
        args (`TeamTRConfig`): For `num_agents`.
        peft_config ([`~peft.PeftConfig`], *optional*): For trainable agents that have none of their own.
    """
    if isinstance(model, str) and os.path.isfile(os.path.join(model, TEAM_FILE)):
        warn_of_other_turns(model, args)
        model = load_team(model)
    model = [model] if isinstance(model, Agent) else model
    if isinstance(model, (list, tuple)):
        agents = [copy.copy(agent) for agent in model]
        check_names(agents)
        if args.num_agents is not None and args.num_agents != len(agents):
            raise ValueError(
                f"`num_agents` is {args.num_agents}, but `model` lists {len(agents)} agents. Leave `num_agents` out."
            )
    else:
        count = args.num_agents or 1
        if count > 1 and isinstance(model, PeftModel):
            raise ValueError(
                "A `PeftModel` is one agent. For a team, pass the base model and a `peft_config`, or a list of `Agent`."
            )
        names = ["agent"] if count == 1 else [f"agent_{i + 1}" for i in range(count)]
        agents = [Agent(name, model) for name in names]
        if count > 1 and peft_config is None and isinstance(model, PreTrainedModel):
            for agent in agents[1:]:
                agent.model = copy_untouched(model)
    for agent in agents:
        if peft_config and agent.peft_config is None and agent.trainable and not _is_adapter(agent.model):
            agent.peft_config = peft_config
    _check_shared_instances(agents)
    if args.monitor_fraction and all(agent.radius_in(args) is None for agent in agents if agent.trainable):
        raise ValueError(
            f"`monitor_fraction={args.monitor_fraction}` is for the radius, but no agent that is trained has one: "
            "`trust_region_radius` is `None`. Leave `monitor_fraction` at 0, or set a radius."
        )
    return agents


def warn_of_other_turns(path: str, args: TeamTRConfig):
    """A saved team takes turns as `args` says, which may be no longer as it was trained."""
    saved = read_team_file(path)["rollout"]
    other = [
        f"{name}={value!r} (now {vars(args)[name]!r})" for name, value in saved.items() if vars(args)[name] != value
    ]
    if other:
        warnings.warn(
            f"The team in {path!r} was saved with {', '.join(other)}. Pass the same to `TeamTRConfig` to let it take "
            "turns as it did.",
            stacklevel=4,
        )


def _is_adapter(model: Any) -> bool:
    return isinstance(model, PeftModel) or (isinstance(model, str) and find_adapter_config_file(model) is not None)


def _check_shared_instances(agents: Sequence[Agent]):
    """Two agents may hold the same model object only if none of them trains its weights."""
    for a, b in itertools.combinations(agents, 2):
        whole = [x.name for x in (a, b) if x.trainable and x.peft_config is None]
        if a.model is b.model and isinstance(a.model, PreTrainedModel | PeftModel) and whole:
            raise ValueError(
                f"Agents {a.name!r} and {b.name!r} hold the same model object, and training {whole[0]!r} would change "
                "both. Give each a model of its own (or its path), or a `peft_config` to train adapters on the shared "
                "base."
            )


def default_args(model: Any) -> TeamTRConfig:
    """A default config for `model`, which [`resolve_team`] takes; named after its first model."""
    if isinstance(model, (list, tuple, Agent)):
        team = [model] if isinstance(model, Agent) else model
        check_names(team)
        model = team[0].model
    name = model if isinstance(model, str) else get_config_model_id(model.config)
    return TeamTRConfig(f"{os.path.basename(name.rstrip('/'))}-TeamTR")


def load_models(
    agents: Sequence[Agent], args: TeamTRConfig, quantization_config: Any = None, processing_class: Any = None
):
    """
    Replace, in `agents`, the paths of models that need more than `GRPOTrainer` does: adapters are put on their base,
    and LoRA agents with the same base share it. Paths of whole models are left for `GRPOTrainer` to load. An adapter's
    tokenizer is loaded unless the agent has one, or `processing_class` is there for all.
    """
    load_kwargs = {} if quantization_config is None else {"quantization_config": quantization_config}
    bases: dict[Any, PreTrainedModel] = {}
    for agent in agents:
        if isinstance(agent.model, str) and agent.model.count("/") != 1 and os.path.dirname(agent.model):
            if not os.path.isdir(agent.model):  # a hub id has one slash at most
                raise FileNotFoundError(f"Agent {agent.name!r}: there is no model directory {agent.model!r}.")
        if isinstance(agent.model, str) and find_adapter_config_file(agent.model) is not None:
            path = agent.model
            peft_config = PeftConfig.from_pretrained(path)
            base = peft_config.base_model_name_or_path
            model = _shared_base(base, peft_config, agent, bases, args, load_kwargs)
            agent.model = PeftModel.from_pretrained(model, path, is_trainable=agent.trainable)
            if agent.processing_class is None and processing_class is None:
                own = os.path.isfile(os.path.join(path, "tokenizer_config.json"))
                agent.processing_class = AutoTokenizer.from_pretrained(
                    path if own else base,
                    padding_side="left",
                    trust_remote_code=args.trust_remote_code or agent.trust_remote_code,
                )
        elif agent.peft_config is not None and not isinstance(agent.model, PeftModel):
            agent.model = _shared_base(agent.model, agent.peft_config, agent, bases, args, load_kwargs)


def _leaves_base_alone(peft_config: PeftConfig) -> bool:
    """Whether an adapter neither trains weights of its base nor rewrites them when it is made, as PiSSA and OLoRA do."""
    fields = vars(peft_config)
    own_init = (True, False, "gaussian", "orthogonal")
    return fields.get("bias", "none") == "none" and fields.get("init_lora_weights", True) in own_init


def _shared_base(
    base: str | PreTrainedModel,
    peft_config: PeftConfig,
    agent: Agent,
    bases: dict,
    args: TeamTRConfig,
    load_kwargs: dict[str, Any],
) -> PreTrainedModel:
    """A clone over the weights of the base model, or a base of its own for an adapter that would change them."""
    # Agents that do not trust the code of a model are given none that was loaded with it
    key = (base, agent.trust_remote_code) if isinstance(base, str) else id(base)
    share = args.share_base_model and _leaves_base_alone(peft_config)
    if key not in bases or not share:
        if isinstance(base, str):
            kwargs = {"trust_remote_code": args.trust_remote_code, **_init_kwargs(args, agent)}
            # On one device each, as TRL loads whole models; `create_model_from_path` would spread them over all
            if args.distributed_state.distributed_type in (DistributedType.MULTI_GPU, DistributedType.DEEPSPEED):
                kwargs["device_map"] = None
            base = create_model_from_path(base, **kwargs, **load_kwargs)
        elif not share:
            base = copy_untouched(base)
        if not share:
            return base
        bases[key] = base
    # Clones are made of the untouched model: wrapping one must not show in the next
    return clone_sharing_weights(bases[key])


def _init_kwargs(args: TeamTRConfig, agent: Agent) -> dict[str, Any]:
    """`args.model_init_kwargs` for one agent: a copy, since TRL writes `trust_remote_code` into the dict it is given."""
    own = {"trust_remote_code": True} if agent.trust_remote_code else {}
    return {**(args.model_init_kwargs or {}), **own}


def agent_args(args: TeamTRConfig, agent: Agent, lead: bool, num_trained: int = 1) -> TeamTRConfig:
    """
    The config of one member: the team's, with the agent's own settings, and logging and saving left to the lead.
    `num_trained` is the number of trainable agents, by which stages become updates.
    """
    own = copy.copy(args)
    if args.num_stages is not None:
        own.max_steps = args.num_stages * num_trained  # what `Trainer` knows
    kwargs = {**(args.generation_kwargs or {}), **(agent.generation_kwargs or {})}
    if "max_new_tokens" in kwargs:  # another name of the same
        kwargs.setdefault("max_completion_length", kwargs.pop("max_new_tokens"))
    for name in CONFIG_FIELDS:
        if name in kwargs:
            setattr(own, name, kwargs.pop(name))
    own.generation_kwargs = kwargs or None
    own.chat_template_kwargs = {**(args.chat_template_kwargs or {}), **(agent.chat_template_kwargs or {})} or None
    if agent.learning_rate is not None:
        own.learning_rate = agent.learning_rate
    own.trust_remote_code = args.trust_remote_code or agent.trust_remote_code
    # Those of a loaded model are used already, by `load_models` or by the user
    own.model_init_kwargs = (_init_kwargs(args, agent) or None) if isinstance(agent.model, str) else None
    if agent.radius_in(args) is None:
        own.monitor_fraction = 0.0  # nothing to monitor, and so all rollouts are trained on
    if not agent.trainable:
        own.beta = 0.0  # no update, and so no reference model
    if not lead:
        own.report_to, own.log_completions, own.push_to_hub = [], False, False
        own.eval_strategy, own.do_eval, own.load_best_model_at_end = "no", False, False
    return own


def describe_team(agents: Sequence[Agent], args: TeamTRConfig) -> dict[str, Any]:
    """The content of `team.json`."""
    return {
        "format": 1,
        "agents": [{field: getattr(agent, field) for field in SAVED_FIELDS} for agent in agents],
        "rollout": {
            "num_rounds": args.num_rounds,
            "max_turns": args.max_turns,
            "router": args.router,
            "stop_string": args.stop_string,
        },
    }


def read_team_file(path: str) -> dict[str, Any]:
    """The content of the `team.json` in directory `path`."""
    with open(os.path.join(path, TEAM_FILE), encoding="utf-8") as file:
        return json.load(file)


def load_team(path: str) -> list[Agent]:
    """
    The agents of a saved team, ready to be evaluated or trained further: `TeamTRTrainer(load_team("run"), ...)`.

    Args:
        path (`str`): Directory that [`~TeamTRTrainer.save_model`] wrote.

    Raises:
        `FileNotFoundError`: If there is no team in `path`.
    """
    if not os.path.isfile(os.path.join(path, TEAM_FILE)):
        raise FileNotFoundError(f"There is no {TEAM_FILE} in {path!r}. Pass the directory that `save_model` wrote.")
    agents = []
    for entry in read_team_file(path)["agents"]:
        # Whoever wrote the file has no say in whether code is run
        fields = {field: entry[field] for field in SAVED_FIELDS if field in entry}
        agents.append(Agent(model=os.path.join(path, entry["name"]), **fields))
    return agents


def check_same_team(path: str, agents: Sequence[Agent]):
    """
    Raise if `path` holds another team than `agents`.

    Raises:
        `ValueError`: Naming the difference, if the names or their order differ.
    """
    if not os.path.isfile(os.path.join(path, TEAM_FILE)):
        return
    there, here = [entry["name"] for entry in read_team_file(path)["agents"]], [agent.name for agent in agents]
    if there != here:
        raise ValueError(
            f"{path!r} holds another team: its agents are {', '.join(there)}; this team's are {', '.join(here)}. "
            "Choose another `output_dir` (or checkpoint), or remove the old one."
        )


def base_is_lost(model: Any) -> bool:
    """Whether a saved adapter of `model` could not be loaded again, because its base has no path."""
    return isinstance(model, PeftModel) and not get_config_model_id(model.get_base_model().config)


def grpo_arguments(agent: Agent, args: TeamTRConfig, processing_class, lead: bool, num_trained: int) -> dict[str, Any]:
    """What `GRPOTrainer` is given for a member; its own tokenizer, else the trainer's, else `GRPOTrainer` loads one."""
    return {
        "model": agent.model,
        "args": agent_args(args, agent, lead, num_trained),
        "processing_class": agent.processing_class if agent.processing_class is not None else processing_class,
        "peft_config": agent.peft_config,
    }
