"""An engine in this process does what a team relies on; here a fake one."""

import pytest
from accelerate import Accelerator
from engine_contract import check_adapters, check_messages, check_sleep, check_weights, make_engine
from fake_engine import fake_engines
from tiny import make_model
from vllm_teams import lora_team, save_base, speakers_of

from trl_teamtr.policy.generation.served import save_adapter


@pytest.fixture
def engines(monkeypatch):
    return fake_engines(monkeypatch)


@pytest.fixture
def base(tmp_path):
    return save_base(tmp_path / "base", size=4)


def arguments(base, **fields):
    return {"model": base, "max_model_len": 128, "enable_sleep_mode": True, **fields}


LORA = {"enable_lora": True, "max_lora_rank": 8, "max_loras": 2}


def save(speakers, folder):
    for speaker in speakers:
        save_adapter(speaker, str(folder / speaker.name))
    return {speaker.name: (str(folder / speaker.name), speaker.policy.model) for speaker in speakers}


def test_a_model_without_adapters(base, engines):
    engine = make_engine(arguments(base), Accelerator())
    check_messages(engine, None)
    check_weights(engine, [make_model(4, seed) for seed in (3, 5)])
    assert engines.made[0].environment["WORLD_SIZE"] == "1"


def test_adapters(tmp_path, base, engines):
    engine = make_engine(arguments(base, **LORA), Accelerator())
    saved = save(speakers_of(lora_team(base)), tmp_path)
    check_adapters(engine, saved)
    check_sleep(engine, *saved["x"])
    with pytest.raises(ValueError, match="No adapter found for .*nowhere"):
        engine.load_adapter("n", str(tmp_path / "nowhere"))
    assert not engine.knows("n") and engine.num_adapters == 0


def test_an_answer_to_another_request_is_an_error(base, engines, monkeypatch):
    engine = make_engine(arguments(base), Accelerator())
    answer = engines._answer
    monkeypatch.setattr(engines, "_answer", lambda self, prompt, *args: answer(self, {"prompt_token_ids": [0]}, *args))
    with pytest.raises(RuntimeError, match="answered another request"):
        check_messages(engine, None)
