"""The settings of a team, and an agent's own over them."""

import dataclasses

from trl import GRPOConfig

from trl_teamtr import Agent
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings


def test_defaults_are_those_of_trl():
    defaults = {field.name: field.default for field in dataclasses.fields(GRPOConfig)}
    for field in dataclasses.fields(SamplingSettings):
        assert field.default == defaults[field.name], field.name


def test_settings_of_a_config(make_config):
    fields = {"temperature": 0.5, "top_k": 3, "max_completion_length": 7, "generation_kwargs": {"num_beams": 1}}
    settings = SpeakingSettings.of(make_config(max_context_length=99, chat_template_kwargs={"a": 1}, **fields), "q")
    assert settings.sampling == SamplingSettings(**fields)
    assert settings.max_context_length == 99 and settings.quantization_config == "q"


def test_own_settings_of_an_agent():
    team = SamplingSettings(temperature=0.9, generation_kwargs={"num_beams": 1})
    own = team.with_own(Agent("x", "m", generation_kwargs={"temperature": 0.1, "max_new_tokens": 4, "seed": 2}))
    assert own == SamplingSettings(0.1, max_completion_length=4, generation_kwargs={"num_beams": 1, "seed": 2})
    assert team.with_own(Agent("x", "m")) == team


def test_trust_and_templates_are_an_agents_own():
    settings = SpeakingSettings(chat_template_kwargs={"a": 1}, model_init_kwargs={"dtype": "float32"})
    agent = Agent("x", "m", trust_remote_code=True, chat_template_kwargs={"b": 2})
    assert settings.trusts(agent) and not settings.trusts(Agent("y", "m"))
    assert settings.template_kwargs(agent) == {"a": 1, "b": 2}
    assert settings.init_kwargs(agent) == {"trust_remote_code": True, "dtype": "float32"}
    assert settings.init_kwargs(Agent("y", "m")) == {"trust_remote_code": False, "dtype": "float32"}
