import pytest
from test_service_desk_cases import every_case

from trl_teamtr.tasks.loading import default_reward, load_reward
from trl_teamtr.tasks.service_desk.cases import dump_case, load_case
from trl_teamtr.tasks.service_desk.environment import ServiceDesk
from trl_teamtr.tasks.service_desk.reward import score, service_desk_reward


def play(case: dict, calls) -> ServiceDesk:
    desk = ServiceDesk()
    desk.reset(dump_case(case))
    for call in calls:
        getattr(desk, call.name)(**call.arguments)
    return desk


def say(*texts: str, name: str = "assistant") -> list[dict]:
    return [{"role": "assistant", "name": name, "content": f"It is {text}."} for text in texts]


@pytest.mark.parametrize("faults, question, case", list(every_case()))
def test_scripted_policies(faults, question, case):
    text, reference = dump_case(case), load_case(dump_case(case))["reference"]
    done, untouched = play(case, reference).database, play(case, []).database
    assert score(text, done, say(*case["required"])) == 1.0
    assert score(text, untouched, []) == float(not faults and question is None)
    assert score(text, done, []) == float(question is None)
    assert score(text, done, say(*case["required"], name="user")) == float(question is None)
    if faults:
        assert score(text, untouched, say(*case["required"])) == 0.0
    other = next(number for number in done["accounts"] if number != case["number"])
    for wrong in (
        {"accounts": done["accounts"] | {other: done["accounts"][other] | {"roaming": True}}},
        {"phone": done["phone"] | {"airplane_mode": True}},
    ):
        assert score(text, done | wrong, say(*case["required"])) == 0.0


def test_a_number_within_another_was_not_said():
    case = next(case for faults, question, case in every_case() if question == "data")
    (left,) = case["required"]
    done = play(case, load_case(dump_case(case))["reference"]).database
    assert score(dump_case(case), done, say(f"1{left}")) == 0.0
    assert score(dump_case(case), done, say(f"{left} GB")) == 1.0


def test_half_of_the_reference_is_not_enough():
    for faults, _, case in every_case():
        reference = load_case(dump_case(case))["reference"]
        for i in range(len(reference)):
            if reference[i].name == "look_up":
                continue
            desk = play(case, reference[:i])
            assert score(dump_case(case), desk.database, say(*case["required"])) == 0.0, (faults, i)


def test_reward_of_a_batch_reads_environments_and_transcripts():
    cases = [case for _, _, case in every_case()][:6]
    desks = [play(case, load_case(dump_case(case))["reference"]) for case in cases]
    desks[0].toggle_airplane_mode()
    rewards = service_desk_reward(
        transcripts=[say(*case["required"]) for case in cases],
        environments=desks,
        case=[dump_case(case) for case in cases],
        prompts=None,
    )
    assert rewards == [0.0] + [1.0] * 5
    assert load_reward(default_reward("service_desk")) is service_desk_reward
