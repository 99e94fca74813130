"""Versions of an agent's weights on a server: which the server holds, and what is deleted when."""

import os

import pytest
import torch
from fake_vllm import serving
from vllm_teams import lora_team, save_base, speakers_of

from trl_teamtr import Agent
from trl_teamtr.policy.generation.client import ServerClient
from trl_teamtr.policy.generation.servable import is_adapter
from trl_teamtr.policy.generation.served import ServedAdapter, ServedBase, ServedNull, ServedWeights
from trl_teamtr.policy.generation.versions import Versions


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


def test_an_adapter_that_adds_nothing_serves_the_base(tmp_path):
    base = save_base(tmp_path / "base")
    with serving(base) as server:
        pattern, frozen = speakers_of([*lora_team(base, "x"), Agent("f", base, trainable=False)])
        versions = Versions(str(tmp_path / "sync"), "run", "f")
        served = ServedNull(frozen, ServerClient(server.url, 5.0), versions, pattern)
        served.publish()
        assert served.model == "run-f-v1"
        added = [p for name, p in server.adapters["run-f-v1"].named_parameters() if "lora_" in name]
        assert added and all(not p.any() for p in added)
        assert any(p.any() for name, p in pattern.policy.model.named_parameters() if "lora_" in name)
        served.withdraw(from_server=True)
        assert not server.adapters and not (tmp_path / "sync").exists()


def test_weights_that_the_server_has_are_not_sent(tmp_path):
    (speaker,) = speakers_of([Agent("x", save_base(tmp_path / "base"), trainable=False)])
    served = ServedBase(speaker, "name")
    served.publish()
    served.withdraw(from_server=True)
    assert served.model == "name" and not is_adapter(speaker)
