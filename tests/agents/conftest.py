"""Saved models and adapters."""

import pytest
from adapters import change_adapter, lora
from peft import get_peft_model

from trl_teamtr import Agent
from trl_teamtr.agents.models import load_models
from trl_teamtr.agents.settings import SpeakingSettings
from trl_teamtr.tasks.link import make_model, make_tokenizer


@pytest.fixture(scope="module")
def base_path(tmp_path_factory):
    """A saved model with its tokenizer."""
    path = str(tmp_path_factory.mktemp("base"))
    tokenizer = make_tokenizer()
    make_model(tokenizer, seed=0).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def model():
    return make_model(make_tokenizer(), seed=0)


@pytest.fixture
def adapter_path(base_path, tmp_path):
    """A saved adapter that is not the identity."""
    agent = Agent("a", base_path, peft_config=lora())
    load_models([agent], SpeakingSettings())
    adapter = get_peft_model(agent.model, agent.peft_config)
    change_adapter(adapter, 0.5)
    path = str(tmp_path / "adapter")
    adapter.save_pretrained(path)
    return path
