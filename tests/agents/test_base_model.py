"""The model below the adapters."""

from peft import LoraConfig, get_peft_model
from tiny import make_model

from trl_teamtr.agents.base_model import without_adapters


def test_an_adapter_has_a_base_and_a_whole_model_is_its_own():
    model = make_model(seed=0)
    assert without_adapters(model) is model
    adapter = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    assert without_adapters(adapter) is adapter.get_base_model() is not adapter
