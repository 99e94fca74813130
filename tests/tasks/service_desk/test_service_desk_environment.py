import random
from inspect import getmembers, isfunction

import pytest
from transformers.utils import get_json_schema

from trl_teamtr.tasks.service_desk.cases import FAULTS, dump_case, make_case
from trl_teamtr.tasks.service_desk.environment import ASSISTANT_TOOLS, USER_TOOLS, ServiceDesk


def begin(*faults):
    case = make_case(random.Random(0), faults, None, num_accounts=3)
    desk = ServiceDesk()
    assert desk.reset(prompt="?", case=dump_case(case)) is None
    return desk, case["number"]


@pytest.mark.parametrize("name", [*ASSISTANT_TOOLS, *USER_TOOLS, "snapshot", "restore"])
def test_methods_have_schemas(name):
    schema = get_json_schema(getattr(ServiceDesk(), name))["function"]
    assert schema["name"] == name and schema["description"]
    assert list(schema["parameters"]["properties"]) == (
        ["number"] if name in ASSISTANT_TOOLS else ["state"] if name == "restore" else []
    )


def test_every_public_method_is_a_tool_of_one_party_or_keeps_the_state():
    public = {name for name, _ in getmembers(ServiceDesk, isfunction) if not name.startswith("_")}
    assert public == {*ASSISTANT_TOOLS, *USER_TOOLS, "reset", "snapshot", "restore"}
    assert not set(ASSISTANT_TOOLS) & set(USER_TOOLS)


def test_bill_needs_both_in_turn():
    desk, number = begin("bill")
    with pytest.raises(ValueError, match="sent no bill"):
        desk.pay_bill()
    with pytest.raises(ValueError, match="not paid"):
        desk.resume_line(number)
    assert "bill: overdue, line: suspended" in desk.look_up(number) and "no connection" in desk.check_phone()
    desk.send_bill(number)
    with pytest.raises(ValueError, match="not paid"):
        desk.resume_line(number)
    desk.pay_bill()
    desk.resume_line(number)
    assert desk.check_phone().startswith("connected")
    for call in (lambda: desk.send_bill(number), desk.pay_bill, lambda: desk.resume_line(number)):
        with pytest.raises(ValueError):
            call()


def test_roaming_needs_both():
    desk, number = begin("roaming")
    desk.toggle_roaming()
    assert "no connection" in desk.check_phone() and "roaming: on" in desk.check_phone()
    desk.allow_roaming(number)
    assert desk.check_phone().startswith("connected")


def test_airplane_mode_is_the_users():
    desk, number = begin("airplane")
    assert "no connection, airplane mode: on" in desk.check_phone() and "line: active" in desk.look_up(number)
    assert desk.toggle_airplane_mode() == "airplane mode: off" and desk.check_phone().startswith("connected")
    assert desk.toggle_airplane_mode() == "airplane mode: on"


@pytest.mark.parametrize("tool", ASSISTANT_TOOLS)
def test_unknown_account_is_an_error(tool):
    desk, _ = begin()
    with pytest.raises(ValueError, match="no account with the number 7"):
        getattr(desk, tool)("7")


def play(desk: ServiceDesk, number: str) -> list[str]:
    calls = (lambda: desk.send_bill(number), desk.pay_bill, desk.check_phone, lambda: desk.look_up(number))
    return [call() for call in calls]


def test_calls_have_the_same_results_again():
    desk, number = begin(*FAULTS)
    first = play(desk, number)
    again, _ = begin(*FAULTS)
    assert play(again, number) == first


def test_state_is_kept_and_restored():
    desk, number = begin(*FAULTS)
    kept = desk.snapshot()
    first = play(desk, number)
    after = desk.snapshot()
    for _ in range(2):  # it may be restored again: nothing of it was changed
        desk.restore(kept)
        assert desk.snapshot() == kept != after
        assert play(desk, number) == first
    other = ServiceDesk()
    other.restore(after)
    assert other.check_phone() == desk.check_phone() and other.database is not desk.database
