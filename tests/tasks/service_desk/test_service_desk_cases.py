import random
from itertools import combinations

import pytest

from trl_teamtr.tasks.loading import hold_out, load_split
from trl_teamtr.tasks.service_desk.cases import FAULTS, QUESTIONS, Call, dump_case, load_case, make_case
from trl_teamtr.tasks.service_desk.dataset import make_dataset


def every_case():
    """One case for each combination of faults and question."""
    for size in range(len(FAULTS) + 1):
        for faults in combinations(FAULTS, size):
            for question in (None, *QUESTIONS):
                yield faults, question, make_case(random.Random(0), faults, question, num_accounts=3)


def test_case_has_the_faults_that_it_is_made_with():
    for faults, question, case in every_case():
        account, phone = case["database"]["accounts"][case["number"]], case["database"]["phone"]
        assert (account["line"] == "suspended") == (account["bill"] == "overdue") == ("bill" in faults)
        assert phone["airplane_mode"] == ("airplane" in faults) and phone["abroad"] == ("roaming" in faults)
        assert len(case["required"]) == (question is not None)
        assert case["number"] in case["scenario"]


def test_nothing_is_to_be_done_where_nothing_is_wrong_and_nothing_asked():
    empty = [(faults, question) for faults, question, case in every_case() if not case["reference"]]
    assert empty == [((), None)]


def test_answers_differ_between_accounts_and_are_not_in_the_scenario():
    for _, question, case in every_case():
        left = [account["data_left"] for account in case["database"]["accounts"].values()]
        assert len(set(left)) == len(left)
        if question == "data":
            assert case["required"][0] not in case["scenario"].replace(case["number"], "")


def test_case_survives_as_text():
    _, _, case = next(each for each in every_case() if each[0] == FAULTS)
    loaded = load_case(dump_case(case))
    assert loaded["database"] == case["database"] and loaded["reference"][0] == Call(*case["reference"][0])
    assert all(isinstance(call, Call) for call in loaded["reference"])


def test_rows_tell_each_party_its_part():
    rows = make_dataset(40, seed=0)
    assert rows.column_names == ["prompt", "agent_prompts", "case"] and len(rows) == 40
    for row in rows:
        number = load_case(row["case"])["number"]
        assert number in row["agent_prompts"]["user"] and number not in row["agent_prompts"]["assistant"]
        assert number not in row["prompt"][-1]["content"]


def test_dataset_is_a_function_of_the_seed():
    first, again, other = (make_dataset(20, seed).to_list() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_accounts": 1}, "2 to 900 accounts"),
        ({"num_accounts": 901}, "2 to 900 accounts"),
        ({"num_accounts": 10, "digits": 1}, "2 to 9 accounts"),
        ({"digits": 0}, "2 to 0 accounts"),
        ({"faults": ["sim"]}, "faults: sim is not known.*bill, airplane, roaming"),
        ({"questions": ["age"]}, "questions: age is not known.*plan, data"),
        ({"style": "long"}, "style: long is not known.*text, terse"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_dataset(1, 0, **settings)


def test_small_setting_for_tiny_models():
    rows = make_dataset(60, 0, num_accounts=2, faults=["airplane"], questions=["plan"], digits=1, style="terse")
    cases = [load_case(row["case"]) for row in rows]
    for row, case in zip(rows, cases, strict=True):
        assert row["prompt"] == [{"role": "user", "content": "?"}] and len(case["number"]) == 1
        assert row["agent_prompts"] == {"user": case["number"] + (" plan" if case["required"] else "")}
        assert {call.name for call in case["reference"]} <= {"look_up", "toggle_airplane_mode"}
    assert len({(len(case["reference"]), len(case["required"])) for case in cases}) == 4


def test_nothing_is_to_be_done_in_one_case_of_24():
    cases = [load_case(text) for text in make_dataset(2400, seed=0)["case"]]
    assert 60 < sum(not case["reference"] for case in cases) < 140


def test_held_out_cases_are_others():
    train, held = hold_out(load_split("service_desk", "train", size=300, seed=0, num_accounts=3), 50, seed=0)
    assert len(held) == 50 and len(train) > 200
    assert not {str(row["agent_prompts"]) for row in train} & {str(row["agent_prompts"]) for row in held}
