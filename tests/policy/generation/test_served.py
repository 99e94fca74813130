"""Versions of an agent's weights on a server: names, folders, what is deleted when, and which adapters are refused."""

import os

import pytest
import torch
from fake_vllm import serving
from vllm_teams import lora_team, make_lora, save_base, speakers_of

from trl_teamtr import Agent
from trl_teamtr.policy.generation.client import ServerClient
from trl_teamtr.policy.generation.served import (
    ServedAdapter,
    ServedBase,
    ServedWeights,
    Versions,
    base_of,
    is_adapter,
    rank_of,
)


def shift(speaker):
    with torch.no_grad():
        for parameter in speaker.policy.model.parameters():
            parameter += 0.1 * parameter.requires_grad


def test_an_adapter_has_a_new_name_and_folder_for_each_version(tmp_path):
    base, root = save_base(tmp_path / "base"), tmp_path / "sync"
    with serving(base) as server:
        (speaker,) = speakers_of(lora_team(base, "x"))
        served = ServedAdapter(speaker, ServerClient(server.url, 5.0), Versions(str(root), "run", "x"))
        for number in range(1, 6):
            shift(speaker)
            served.publish()
            assert served.model == f"run-x-v{number}" and list(server.adapters) == [served.model]
            kept = {f"run-x-v{n}" for n in (number - 1, number) if n}
            assert set(os.listdir(root)) == kept  # that of the last version may be read once more
        loaded = dict(server.adapters[served.model].named_parameters())
        own = {name: p for name, p in speaker.policy.model.named_parameters() if "lora_" in name}
        assert own and all(torch.equal(p, loaded[name]) for name, p in own.items())
        assert server.held == 2 and server.missing == []
        served.withdraw(from_server=True)
        assert not server.adapters and not root.exists()
        served.publish()
        assert served.model == "run-x-v6"


def test_an_adapter_that_was_not_taken_is_forgotten_with_the_next(tmp_path):
    base = save_base(tmp_path / "base")
    with serving(base) as server:
        (speaker,) = speakers_of(lora_team(base, "x"))
        served = ServedAdapter(speaker, ServerClient(server.url, 5.0), Versions(str(tmp_path / "sync"), "run", "x"))
        served.publish()
        server.dead = True
        with pytest.raises(Exception, match="Connection"):
            served.publish()
        server.dead = False
        served.publish()
        assert list(server.adapters) == ["run-x-v3"] and server.missing == []


def test_all_weights_go_by_path_and_leave_no_folder(tmp_path):
    base, root = save_base(tmp_path / "base"), tmp_path / "sync"
    with serving(base) as server:
        (speaker,) = speakers_of([Agent("x", base)])
        served = ServedWeights(speaker, ServerClient(server.url, 5.0), Versions(str(root), "run", "x"), base)
        shift(speaker)
        served.publish()
        assert all(
            torch.equal(a, b) for a, b in zip(server.base.parameters(), speaker.policy.model.parameters(), strict=True)
        )
        served.publish()
        paths = [body["kwargs"]["weights_path"] for body in server.sent("/collective_rpc")]
        assert [os.path.basename(path) for path in paths] == ["run-x-v1", "run-x-v2"] and served.model == base
        assert not root.exists()


def test_weights_that_the_server_has_are_not_sent(tmp_path):
    (speaker,) = speakers_of([Agent("x", save_base(tmp_path / "base"), trainable=False)])
    served = ServedBase(speaker, "name")
    served.publish()
    served.withdraw(from_server=True)
    assert served.model == "name" and not is_adapter(speaker)


def test_the_base_of_an_adapter_is_that_of_its_model(tmp_path):
    base = save_base(tmp_path / "base")
    adapter, whole = speakers_of([*lora_team(base, "x"), Agent("y", base)])
    assert base_of(adapter) == base_of(whole) == base
    assert is_adapter(adapter) and rank_of(adapter) == 2


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"use_dora": True}, "'x' has an adapter that vLLM cannot serve: DoRA"),
        ({"bias": "lora_only"}, "`bias='lora_only'`"),
        ({"modules_to_save": ["lm_head"]}, "`modules_to_save="),
        ({"target_modules": ["lm_head"]}, "targets the head or the embeddings"),
        ({"rank_pattern": {"q_proj": 4}}, "an adapter with rank_pattern, but vLLM scales all modules"),
        ({"alpha_pattern": {"q_proj": 4}}, "an adapter with alpha_pattern, but vLLM scales all modules"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora', which rewrites its base"),
    ],
)
def test_adapters_that_a_server_cannot_serve_are_refused(tmp_path, fields, message):
    agent = Agent("x", save_base(tmp_path / "base"), peft_config=make_lora(**fields))
    (speaker,) = speakers_of([agent])
    with pytest.raises(ValueError, match=message):
        rank_of(speaker)
