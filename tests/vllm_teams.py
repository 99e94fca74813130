"""Tiny teams for vLLM, fake and real: servers, and engines in this process."""

from accelerate import Accelerator
from peft import LoraConfig
from tiny import make_model, make_tokenizer

from trl_teamtr import Agent
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
from trl_teamtr.policy.generation.engine_fleet import EngineFleet
from trl_teamtr.policy.generation.engine_settings import EngineSettings
from trl_teamtr.policy.generation.fleet import Fleet, FleetSettings
from trl_teamtr.policy.making import make_speakers


def save_base(folder, seed: int = 0, size: int = 3, **fields) -> str:
    make_model(size, seed, **fields).save_pretrained(folder)
    make_tokenizer(size).save_pretrained(folder)
    return str(folder)


def make_lora(**fields) -> LoraConfig:
    """An adapter that changes its base before any update, unless it is told otherwise."""
    defaults = {"r": 2, "target_modules": ["q_proj", "v_proj", "o_proj"], "init_lora_weights": False}
    return LoraConfig(task_type="CAUSAL_LM", **(defaults | fields))


def lora_team(base: str, names: str = "xy", **fields) -> list[Agent]:
    return [Agent(name, base, peft_config=make_lora(), **fields) for name in names]


def speakers_of(agents: list[Agent], **fields):
    """Speakers without a trainer; `max_context_length` is a setting of reading, the others of sampling."""
    sampling = SamplingSettings(**({"max_completion_length": 4} | fields))
    return make_speakers(agents, SpeakingSettings(sampling), Accelerator())


def make_fleet(speakers, url: str, folder, **fields) -> Fleet:
    defaults = {"timeout": 5.0, "sync_dir": str(folder), "max_logp_difference": 1e-4}
    fleet = Fleet(speakers, FleetSettings(url, **(defaults | fields)))
    for speaker in speakers:
        speaker.backend = fleet
    return fleet


def on_server(url: str, **fields) -> dict:
    """Fields of the config of a team on a server."""
    defaults = {"use_vllm": True, "vllm_mode": "server", "vllm_importance_sampling_correction": False}
    defaults |= {"vllm_server_base_url": url, "vllm_server_timeout": 5.0, "vllm_max_logp_difference": 1e-4}
    return defaults | fields


def make_engines(speakers, folder, **fields) -> EngineFleet:
    """Engines in this process for `speakers`, who then speak through them."""
    defaults = {"memory": 0.1, "max_length": None, "rows": 64, "sleeps": False, "model_impl": "vllm"}
    settings = EngineSettings(**(defaults | {"sync_dir": str(folder), "max_logp_difference": 1e-4} | fields))
    fleet = EngineFleet(speakers, settings)
    for speaker in speakers:
        speaker.backend = fleet
    return fleet


def in_process(**fields) -> dict:
    """Fields of the config of a team on engines in its process."""
    defaults = {"use_vllm": True, "vllm_mode": "colocate", "vllm_importance_sampling_correction": False}
    return defaults | {"vllm_gpu_memory_utilization": 0.1, "vllm_max_logp_difference": 1e-4} | fields
