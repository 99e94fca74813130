"""A member is replaced between stages on two processes, by DDP, ZeRO-2 and ZeRO-3: it starts anew, and a resume is bit-identical."""

import functools

import pytest
import torch
from launching import derive_config, launch
from peft import get_peft_model
from safetensors.torch import load_file
from teams import lora, make_larger_model, save_models
from tiny import make_model, make_tokenizer
from transformers import AutoModelForCausalLM


# The member that is replaced, the trained one that goes on, and the file with the new one's weights
KINDS = {"full": ("x", "y", "model.safetensors"), "adapter": ("y", "x", "adapter_model.safetensors")}
ENGINES = ("multi_gpu", "zero2", "zero3")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    # Unlike those of "large", the messages of the new one differ; "narrow" has its layers in another width
    for name, model in (("new-full", make_larger_model(6)), ("narrow", make_model(4, 1, num_hidden_layers=2))):
        model.save_pretrained(folder / name)
        make_tokenizer(4).save_pretrained(folder / name)
    for seed, name in enumerate(("new-adapter", "spoken")):
        base = AutoModelForCausalLM.from_pretrained(folder / "base")
        torch.manual_seed(seed)
        get_peft_model(base, lora()).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def swapped(models, tmp_path_factory):
    """A function of an engine: the folder of its runs, and what each process found."""

    @functools.cache
    def run(engine):
        folder = tmp_path_factory.mktemp(engine)
        launch(derive_config(engine, folder), "run_swap.py", models, folder, *KINDS, timeout=900)
        return folder, [torch.load(folder / f"swap-{rank}.pt", weights_only=False) for rank in (0, 1)]

    return run


def same(one: dict, other: dict):
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ENGINES)
def test_the_new_member_has_its_own_weights_and_the_others_go_on(swapped, models, engine, kind):
    folder, results = swapped(engine)
    name, other, file = KINDS[kind]
    given = load_file(models / f"new-{kind}" / file)
    same(load_file(folder / kind / "checkpoint-4" / name / file), given)
    for found in (result[kind] for result in results):
        for read in (found["begun"][name], found["loaded"][name]):
            weights = {key.replace(".default", ""): value for key, value in read.items()}
            same({key: weights[key] for key in given}, given)
        assert found["joined"] == {name: 4, other: 0}
        assert not any(value.abs().sum() > 0 for value in found["after"][name])
        assert any(value.abs().sum() > 0 for value in found["before"][other])
        same(found["after"][other], found["before"][other])
        for key in found["kept"].keys() - {name}:
            same(found["begun"][key], found["kept"][key])
            same(found["loaded"][key], found["kept"][key])
        assert found["bases"] == {"full": 2, "adapter": 1}[kind]  # all adapters are on one
        assert len(found["refused"]) == {"full": 1, "adapter": 0}[kind]
        assert all("cannot be loaded: has another shape" in message for message in found["refused"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_resumes_after_a_swap_bit_for_bit(swapped, engine, kind):
    for found in (result[kind] for result in swapped(engine)[1]):
        same(found["again"], found["whole"])
        for name in found["joined"]:
            before, after = found["begun"][name], found["whole"][0][name]
            assert any(not torch.equal(before[key], after[key]) for key in before)
        same(swapped(engine)[1][0][kind]["whole"][0], found["whole"][0])


@pytest.mark.parametrize("kind", KINDS)
def test_zero_3_agrees_with_zero_2(swapped, kind):
    (ours, _), (theirs, _) = (swapped(engine)[1][0][kind]["whole"] for engine in ("zero3", "zero2"))
    for name, weights in theirs.items():
        for key, weight in weights.items():
            assert (ours[name][key] - weight).norm() <= 1e-4 * weight.norm() + 1e-7, (name, key)
