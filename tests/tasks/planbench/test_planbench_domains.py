"""How PlanBench words facts and actions."""

import pytest

from trl_teamtr.tasks.planbench.domains import DOMAINS


@pytest.mark.parametrize(
    "domain, text, fact",
    [
        ("blocksworld", "the red block is on top of the blue block", ("on", "red", "blue")),
        ("blocksworld", "the hand is empty", ("handempty",)),
        ("mystery_blocksworld", "object b craves object c", ("craves", "b", "c")),
        ("mystery_blocksworld", "harmony", ("harmony",)),
        ("logistics", "location_1_0 is in the city city_1", ("in-city", "l1-0", "c1")),
        ("logistics", "package_0 is in truck_1", ("in", "p0", "t1")),
        ("depots", "crate0 is on pallet1", ("on", "crate0", "pallet1")),
        ("depots", "hoist2 is lifting crate0", ("lifting", "hoist2", "crate0")),
        ("obfuscated_deceptive_logistics", "next object_8 object_6", ("next", "o8", "o6")),
        ("obfuscated_deceptive_logistics", "cats object_0", ("cats", "o0")),
    ],
)
def test_facts(domain, text, fact):
    assert DOMAINS[domain].read_fact(text) == fact


@pytest.mark.parametrize(
    "domain, line, step",
    [
        ("blocksworld", "  12. Pick up the red block", ("pick-up", "red")),
        ("blocksworld", "I will pick up the red block", None),
        ("blocksworld", "unstacking the red block", None),
        ("blocksworld", "()", None),
        ("logistics", "load package_0 into truck_1 at location_0_1", ("load-truck", "p0", "t1", "l0-1")),
        ("logistics", "load package_0", ("load-truck", "p0")),
        ("logistics", "drive truck_0 from location_2_0 to location_2_1", ("drive-truck", "t0", "l2-0", "l2-1", "c2")),
        (
            "depots",
            "use hoist0 to lift crate1 from pallet0 at depot0",
            ("lift", "hoist0", "crate1", "pallet0", "depot0"),
        ),
        ("depots", "lift hoist0 crate1 pallet0 depot0", ("lift", "hoist0", "crate1", "pallet0", "depot0")),
    ],
)
def test_steps(domain, line, step):
    assert DOMAINS[domain].read_step(line) == step


def test_names_of_objects_say_their_kind():
    facts = [("at", "p0", "l0-1"), ("at", "t1", "l0-1"), ("in-city", "l0-1", "c0")]
    assert DOMAINS["logistics"].implied(facts) == [
        ("city", "c0"),
        ("location", "l0-1"),
        ("obj", "p0"),
        ("truck", "t1"),
    ]
    assert DOMAINS["blocksworld"].implied([("clear", "red")]) == []
