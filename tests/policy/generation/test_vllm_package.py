"""vLLM is found where it is installed in a known version, and its absence is told with what to do."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest

from trl_teamtr.policy.generation.vllm_package import Vllm, find_vllm


@pytest.fixture
def install(monkeypatch):
    """Lets `vllm` be a module of a version."""

    def install(version):
        vllm, request = ModuleType("vllm"), ModuleType("vllm.lora.request")
        vllm.__version__, vllm.LLM, vllm.SamplingParams = version, "llm", "params"
        request.LoRARequest = "request"
        monkeypatch.setitem(sys.modules, "vllm", vllm)
        monkeypatch.setitem(sys.modules, "vllm.lora", ModuleType("vllm.lora"))
        monkeypatch.setitem(sys.modules, "vllm.lora.request", request)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))

    return install


def test_its_absence_is_told_with_the_way_without_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="its environment has no vLLM.*`pip install .*--no-deps.*'server'"):
        find_vllm()


@pytest.mark.parametrize("version", ["0.32.0", "0.32.1+cu129"])
def test_what_is_used_of_it(install, version):
    install(version)
    assert find_vllm() == Vllm("llm", "params", "request")


@pytest.mark.parametrize("version", ["0.31.0", "0.33.0", "0.22.0+cpu"])
def test_another_version_is_refused(install, version):
    install(version)
    with pytest.raises(ImportError, match=f"written for vllm.*0.32, and {version.replace('+', '.')} is installed"):
        find_vllm()
