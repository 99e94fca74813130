from trl_teamtr import Agent
from trl_teamtr.replacement import AlignmentConfig
from trl_teamtr.replacement.unification import describe_unification, unify


def tool() -> str:
    """Says a."""
    return "a"


OLD = Agent("y", "old", system_prompt="Old.", tools=[tool], tool_visibility="all", chat_template_kwargs={"x": 1})
NEW = Agent("y", "new", system_prompt="New.", chat_template_kwargs={"y": 2})


def test_each_switch_by_itself():
    nothing = {"take_system_prompt": False, "thoughts_off": False, "map_calls": False, "align": False}
    plain = unify(NEW, OLD, AlignmentConfig(**nothing))
    assert plain.system_prompt == "New." and plain.chat_template_kwargs == {"y": 2}
    assert plain.tools == [tool] and plain.tool_visibility == "all"  # without which it could not do the old one's work
    prompted = unify(NEW, OLD, AlignmentConfig(**nothing | {"take_system_prompt": True}))
    assert prompted.system_prompt == "Old." and prompted.chat_template_kwargs == {"y": 2}
    silent = unify(NEW, OLD, AlignmentConfig(**nothing | {"thoughts_off": True}))
    assert silent.system_prompt == "New." and silent.chat_template_kwargs == {"y": 2, "enable_thinking": False}
    other = unify(
        NEW, OLD, AlignmentConfig(**nothing | {"thoughts_off": True, "thoughts_off_kwargs": {"thinking": False}})
    )
    assert other.chat_template_kwargs == {"y": 2, "thinking": False}
    assert NEW.system_prompt == "New." and NEW.tools is None  # the given one is not changed


def test_tools_of_its_own_stay():
    assert unify(Agent("y", "new", tools=[]), OLD, AlignmentConfig()).tools == []


def test_the_switches_in_a_report():
    found = describe_unification(AlignmentConfig(align=False, map_calls=False))
    assert found == {"system_prompt": True, "thoughts_off": True, "calls": False, "alignment": False}
