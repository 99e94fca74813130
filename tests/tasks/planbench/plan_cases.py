"""Statements in PlanBench's wording, and plans for them with a verdict by hand."""

BLOCKS = (
    "I am playing with a set of blocks.\n\n[STATEMENT]\nAs initial conditions I have that, the red block is clear and the hand is empty.\n"
    "My goal is to have that the red block is clear.\n\nMy plan is as follows:\n\n[PLAN]\npick up the red block\n[PLAN END]\n\n"
    "[STATEMENT]\nAs initial conditions I have that, the red block is clear, the yellow block is clear, the hand is empty, the red "
    "block is on top of the blue block, the blue block is on the table and the yellow block is on the table.\nMy goal is to have "
    "that the blue block is on top of the yellow block.\n\nMy plan is as follows:\n\n[PLAN]"
)
MYSTERY = (
    "[STATEMENT]\nAs initial conditions I have that, object a craves object b, harmony, planet object b, planet object c, province "
    "object a and province object c.\nMy goal is to have that object b craves object c.\n\nMy plan is as follows:\n\n[PLAN]"
)
LOGISTICS = (
    "[STATEMENT]\nAs initial conditions I have that, location_0_0 is an airport, location_1_0 is an airport, airplane_0 is at "
    "location_1_0, package_0 is at location_0_1, truck_0 is at location_0_0, truck_1 is at location_1_0, location_0_0 is in the city "
    "city_0, location_0_1 is in the city city_0 and location_1_0 is in the city city_1.\nMy goal is to have that package_0 is at "
    "location_1_0.\n\nMy plan is as follows:\n\n[PLAN]"
)
DEPOTS = (
    "[STATEMENT]\nAs initial conditions I have that, crate0 is at depot0, hoist0 is at depot0, hoist1 is at distributor0, pallet0 is at "
    "depot0, pallet1 is at distributor0, truck0 is at depot0, hoist0 is available, hoist1 is available, crate0 is clear, pallet1 is "
    "clear and crate0 is on pallet0.\nMy goal is to have that crate0 is on pallet1.\n\nMy plan is as follows:\n\n[PLAN]"
)
DECEPTIVE = (
    "[STATEMENT]\nAs initial conditions I have that, cats object_0, collect object_2 object_4, collect object_3 object_5, hand object_1, "
    "next object_0 object_2, next object_1 object_3, spring object_2, spring object_3, stupendous object_4, stupendous object_5, "
    "texture object_2 and texture object_3.\nMy goal is to have that next object_1 object_2.\n\nMy plan is as follows:\n\n[PLAN]"
)
QUERIES = {
    "blocksworld": BLOCKS,
    "mystery_blocksworld": MYSTERY,
    "logistics": LOGISTICS,
    "depots": DEPOTS,
    "obfuscated_deceptive_logistics": DECEPTIVE,
}

STEPS = [
    "unstack the red block from on top of the blue block",
    "put down the red block",
    "pick up the blue block",
    "stack the blue block on top of the yellow block",
]
GOOD = "\n".join(STEPS)
FLIGHT = [
    "drive truck_0 from location_0_0 to location_0_1 in city_0",
    "load package_0 into truck_0 at location_0_1",
    "drive truck_0 from location_0_1 to location_0_0 in city_0",
    "unload package_0 from truck_0 at location_0_0",
    "fly airplane_0 from location_1_0 to location_0_0",
    "load package_0 into airplane_0 at location_0_0",
    "fly airplane_0 from location_0_0 to location_1_0",
    "unload package_0 from airplane_0 at location_1_0",
]
HOISTS = [
    "Use hoist0 to lift crate0 from pallet0 at depot0",
    "Use hoist0 to load crate0 into truck0 at depot0",
    "drive truck0 from depot0 to distributor0",
    "Use hoist1 to unload crate0 from truck0 at distributor0",
    "Use hoist1 to drop crate0 to pallet1 at distributor0",
]

PLAN_CASES = [
    ("blocksworld", GOOD, True),
    ("blocksworld", f"[PLAN]\n{GOOD}\n[PLAN END]", True),
    ("blocksworld", f"I think:\n[PLAN]\n{GOOD}\n[PLAN END]\nThat is it.", True),
    ("blocksworld", "(unstack red blue)\n(put-down red)\n(pick-up blue)\n(stack blue yellow)\n", True),
    ("blocksworld", "\n".join(f"{i}. {step}" for i, step in enumerate(STEPS, 1)), True),
    ("blocksworld", "\n".join(f"- {step.capitalize()}." for step in STEPS), True),
    ("blocksworld", "\n".join(f"Step {i}: {step}" for i, step in enumerate(STEPS, 1)), True),
    ("blocksworld", "\n".join(STEPS[:-1]), False),  # unfinished
    ("blocksworld", "\n".join(STEPS[:1]), False),
    ("blocksworld", "\n".join(STEPS[1:]), False),  # the hand is empty
    ("blocksworld", "\n".join([STEPS[2], STEPS[3]]), False),  # the blue block is not clear
    ("blocksworld", "\n".join(reversed(STEPS)), False),
    ("blocksworld", GOOD + "\nput down the blue block", False),  # after the goal, but not possible
    ("blocksworld", GOOD + "\npick up the red block", True),
    ("blocksworld", GOOD + "\nunstack the blue block from on top of the yellow block", False),  # undone
    ("blocksworld", GOOD.replace("yellow", "green"), False),  # there is no such block
    ("blocksworld", GOOD.replace("put down the red block", "stack the red block on top of the yellow block"), False),
    (
        "blocksworld",
        f"[PLAN]\n{STEPS[0]}\n[PLAN END]\nNo:\n[PLAN]\n{GOOD}\n[PLAN END]",
        True,
    ),  # twice: the last one counts
    ("blocksworld", f"[PLAN]\n{GOOD}\n[PLAN END]\nNo:\n[PLAN]\n{STEPS[0]}\n[PLAN END]", False),
    ("blocksworld", f"[PLAN]\n{GOOD}\n[PLAN END]\n{STEPS[0]}", True),
    ("blocksworld", f"<think>{GOOD}</think>I do not know.", False),  # in thoughts only
    ("blocksworld", f"<think>{STEPS[0]}\n</think>\n{GOOD}", True),
    ("blocksworld", f"<think>{GOOD}", False),
    ("blocksworld", "Yes.", False),
    ("blocksworld", "", False),
    ("blocksworld", "(unstack red)\n(put-down red)\n(pick-up blue)\n(stack blue yellow)", False),
    ("blocksworld", "(move red blue)", False),
    (
        "mystery_blocksworld",
        "feast object a from object b\nsuccumb object a\nattack object b\novercome object b from object c",
        True,
    ),
    ("mystery_blocksworld", "(feast a b)\n(succumb a)\n(attack b)\n(overcome b c)", True),
    ("mystery_blocksworld", "attack object b\novercome object b from object c", False),
    ("mystery_blocksworld", "feast object a from object b\nsuccumb object a\nattack object b", False),
    ("logistics", "\n".join(FLIGHT), True),
    ("logistics", "\n".join(FLIGHT).replace(" in city_0", ""), True),  # in which city is left unsaid
    ("logistics", "\n".join(FLIGHT[:-1]), False),
    ("logistics", "\n".join(FLIGHT[1:]), False),
    ("logistics", "\n".join(FLIGHT[:3] + FLIGHT[4:]), False),
    ("logistics", "drive truck_0 from location_0_0 to location_1_0 in city_0", False),
    ("logistics", "fly airplane_0 from location_1_0 to location_0_1", False),  # no airport
    ("logistics", "load package_0 into airplane_0 at location_0_1", False),
    ("depots", "\n".join(HOISTS), True),
    ("depots", "(lift hoist0 crate0 pallet0 depot0)\n" + "\n".join(HOISTS[1:]), True),
    ("depots", "\n".join(HOISTS[:-1]), False),
    ("depots", "\n".join(HOISTS).replace("hoist1", "hoist0"), False),  # it stands elsewhere
    ("depots", "\n".join(HOISTS[:2] + HOISTS[3:]), False),
    (
        "obfuscated_deceptive_logistics",
        "memory object_0 object_2 object_3\nsip object_1 object_0 object_3\nmemory object_0 object_3 object_2\npaltry object_1 object_0 object_2",
        True,
    ),
    (
        "obfuscated_deceptive_logistics",
        "(memory o0 o2 o3)\n(sip o1 o0 o3)\n(memory o0 o3 o2)\n(paltry o1 o0 o2)",
        True,
    ),
    ("obfuscated_deceptive_logistics", "sip object_1 object_0 object_3\nmemory object_0 object_3 object_2", False),
]
