"""How the outcomes of TRL's tests are compared, and that the models made for them are what the tests name."""

import pytest
from documented import left_out
from run_trl_tests import judge, report
from tiny_hub import CLASSIFIERS, MODELS, WIDE_IDS, make_model, make_tokenizer, widen
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification


PASSED = {"outcome": "passed", "reason": ""}


def failed(reason):
    return {"outcome": "failed", "reason": reason}


@pytest.mark.parametrize(
    "theirs, ours, kind",
    [
        (PASSED, PASSED, "passed"),
        (PASSED, failed("KeyError: 'a'"), "FAILED"),
        (failed("KeyError: 'a'"), failed("KeyError: 'a'"), "fails with TRL's own classes"),
        (failed("KeyError: 'a'"), PASSED, "fails with TRL's own classes"),
        (PASSED, failed("ImportError: `vllm_mode='colocate'` runs vLLM in the process of the training"), "documented"),
        (PASSED, failed("ValueError: `rollout_func` is not supported by TeamTRTrainer yet"), "documented"),
        (PASSED, {"outcome": "skipped", "reason": "test requires vllm"}, "skipped"),
    ],
)
def test_only_what_fails_for_a_team_alone_and_undocumented_is_a_failure(theirs, ours, kind, capsys):
    assert judge("test_a", theirs, ours)[0] == kind
    assert report({"test_a": theirs}, {"test_a": ours}) == (kind != "FAILED")
    assert kind in capsys.readouterr().out


def test_a_difference_is_documented_for_its_test_alone():
    name = "test_train_with_adaptive_entropy_gradient_accumulation"
    assert judge(name, PASSED, failed("assert 1 == 2"))[0] == "documented"
    assert judge("test_train", PASSED, failed("assert 1 == 2"))[0] == "FAILED"


def test_kinds_of_tests_are_left_out_by_name():
    assert left_out("tests/test_grpo_trainer.py::TestGRPOTrainerVLM::test_a").startswith("vision")
    assert left_out("tests/test_grpo_trainer.py::TestGRPOTrainer::test_a") is None


@pytest.mark.parametrize("name", [*MODELS, *CLASSIFIERS])
def test_a_model_is_of_the_class_that_its_name_says_and_knows_its_tokenizer(name):
    kind, template, *fields = MODELS.get(name) or CLASSIFIERS[name]
    auto = AutoModelForCausalLM if name in MODELS else AutoModelForSequenceClassification
    tokenizer = make_tokenizer(template)
    model = make_model(auto, kind, len(tokenizer), **dict(*fields))
    assert type(model).__name__ in name
    assert model.get_input_embeddings().num_embeddings > max(tokenizer.get_vocab().values())


def test_the_wide_vocabulary_has_the_real_ids_of_its_control_tokens():
    tokenizer = widen(make_tokenizer("qwen2_5"))
    assert {text: tokenizer.convert_tokens_to_ids(text) for text in WIDE_IDS} == WIDE_IDS
    assert tokenizer.eos_token_id == 151645 and tokenizer.pad_token_id == 151643
    assert tokenizer("Hello<|im_end|>")["input_ids"][-1] == 151645
