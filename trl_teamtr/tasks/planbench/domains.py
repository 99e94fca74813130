"""PlanBench's domains: their actions, and how its prompts word facts and actions."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .strips import Fact, Schemas, Step, read_schemas, rename


BLOCKS = read_schemas("""
    pick-up 1: clear 0, ontable 0, handempty -> holding 0, -clear 0, -ontable 0, -handempty
    put-down 1: holding 0 -> clear 0, handempty, ontable 0, -holding 0
    stack 2: clear 1, holding 0 -> handempty, clear 0, on 0 1, -clear 1, -holding 0
    unstack 2: on 0 1, clear 0, handempty -> holding 0, clear 1, -on 0 1, -clear 0, -handempty
""")
LOGISTICS = read_schemas("""
    load-truck 3: obj 0, truck 1, location 2, at 1 2, at 0 2 -> in 0 1, -at 0 2
    load-airplane 3: obj 0, airplane 1, location 2, at 1 2, at 0 2 -> in 0 1, -at 0 2
    unload-truck 3: obj 0, truck 1, location 2, at 1 2, in 0 1 -> at 0 2, -in 0 1
    unload-airplane 3: obj 0, airplane 1, location 2, at 1 2, in 0 1 -> at 0 2, -in 0 1
    drive-truck 4: truck 0, location 1, location 2, city 3, at 0 1, in-city 1 3, in-city 2 3 -> at 0 2, -at 0 1
    fly-airplane 3: airplane 0, airport 1, airport 2, at 0 1 -> at 0 2, -at 0 1
""")
DEPOTS = read_schemas("""
    drive 3: truck 0, place 1, place 2, at 0 1 -> at 0 2, -at 0 1
    lift 4: hoist 0, crate 1, surface 2, place 3, at 0 3, available 0, at 1 3, on 1 2, clear 1 -> lifting 0 1, clear 2, -at 1 3, -clear 1, -available 0, -on 1 2
    drop 4: hoist 0, crate 1, surface 2, place 3, at 0 3, at 2 3, clear 2, lifting 0 1 -> available 0, at 1 3, clear 1, on 1 2, -lifting 0 1, -clear 2
    load 4: hoist 0, crate 1, truck 2, place 3, at 0 3, at 2 3, lifting 0 1 -> in 1 2, available 0, -lifting 0 1
    unload 4: hoist 0, crate 1, truck 2, place 3, at 0 3, at 2 3, available 0, in 1 2 -> lifting 0 1, -in 1 2, -available 0
""")
_MYSTERY_ACTIONS = {"pick-up": "attack", "put-down": "succumb", "stack": "overcome", "unstack": "feast"}
_MYSTERY_PREDICATES = {
    "ontable": "planet",
    "clear": "province",
    "handempty": "harmony",
    "on": "craves",
    "holding": "pain",
}
_DECEPTIVE_ACTIONS = {
    "load-truck": "clip",
    "load-airplane": "sip",
    "unload-truck": "tightfisted",
    "unload-airplane": "paltry",
    "drive-truck": "wretched",
    "fly-airplane": "memory",
}
_DECEPTIVE_PREDICATES = {"airplane": "cats", "airport": "spring", "at": "next", "city": "stupendous", "in": "vase"}
_DECEPTIVE_PREDICATES |= {"in-city": "collect", "location": "texture", "obj": "hand", "truck": "sneeze"}


@dataclass(frozen=True)
class Domain:
    """
    A domain and its wording.

    Args:
        schemas (`dict[str, Schema]`): Its actions.
        thing (`str`): Pattern of an object in a prompt, whose first group is what names it.
        facts (`dict[str, str]`): By predicate the wording of a fact, with `{}` for its objects.
        verbs (`dict[str, str]`): By the words with which an action begins, its name.
        kinds (`dict[str, tuple[str]]`): By the letters with which names of objects begin, predicates that hold for them.
        complete (`Callable[[Step], Step]`): An action as PDDL has it, of one as the prompts have it.
    """

    schemas: Schemas
    thing: str
    facts: Mapping[str, str]
    verbs: Mapping[str, str]
    kinds: Mapping[str, tuple[str, ...]]
    complete: Callable[[Step], Step] = lambda step: step

    def objects(self, text: str) -> list[str]:
        """The names of the objects in `text`, in order and as plans in PDDL have them."""
        return [_short(found) for found in re.findall(self.thing, text)]

    def read_fact(self, text: str) -> Fact:
        """
        The fact that `text` words.

        Raises:
            `ValueError`: If it words none.
        """
        for predicate, wording in self.facts.items():
            if re.fullmatch(re.escape(wording).replace(re.escape("{}"), f"(?:{self.thing})"), text):
                return (predicate, *self.objects(text))
        raise ValueError(f"{text!r} is none of the facts {', '.join(self.facts.values())}.")

    def implied(self, facts: list[Fact]) -> list[Fact]:
        """What prompts leave unsaid, since names of objects say it: of what kind each is."""
        named = {name for _, *objects in facts for name in objects}
        return [
            (kind, name)
            for name in sorted(named)
            for letters, kinds in self.kinds.items()
            if re.fullmatch(rf"{letters}[\d-]+", name)
            for kind in kinds
        ]

    def read_step(self, line: str) -> Step | None:
        """The action of a line of a plan, worded or in PDDL; `None` if it has none."""
        line = re.sub(r"^[\s\-*•]*(?:(?:step\s*)?\d+\s*[.):]\s*)?", "", line.strip().lower())
        if found := re.match(r"\(([^()]*)\)", line):
            return tuple(found[1].split()) or None
        for verb, name in self.verbs.items():
            if re.match(rf"{verb}\b", line):
                return self.complete((name, *self.objects(line)))
        return None


def _short(name: str) -> str:
    """The name of an object in PDDL: `location_1_0` is `l1-0`."""
    kind, *numbers = name.split("_")
    return kind[0] + "-".join(numbers) if numbers else name


def _complete_logistics(step: Step) -> Step:
    """What carries the package says how it is loaded; the number of a location says in which city a truck drives."""
    name, *objects = step
    if name in ("load", "unload"):
        carrier = "airplane" if objects[1:] and objects[1].startswith("a") else "truck"
        return (f"{name}-{carrier}", *objects)
    if name == "drive-truck" and len(objects) == 3:
        objects.append("c" + objects[1][1:].partition("-")[0])
    return (name, *objects)


_BLOCKSWORLD = Domain(
    BLOCKS,
    thing=r"(\w+) block",
    facts={
        "ontable": "the {} is on the table",
        "clear": "the {} is clear",
        "handempty": "the hand is empty",
        "holding": "the hand is currently holding {}",
        "on": "the {} is on top of the {}",
    },
    verbs={"pick up": "pick-up", "put down": "put-down", "unstack": "unstack", "stack": "stack"},
    kinds={},
)
_MYSTERY = Domain(
    rename(BLOCKS, _MYSTERY_ACTIONS, _MYSTERY_PREDICATES),
    thing=r"object (\w)\b",
    facts={
        "planet": "planet {}",
        "province": "province {}",
        "harmony": "harmony",
        "craves": "{} craves {}",
        "pain": "pain {}",
    },
    verbs={name: name for name in _MYSTERY_ACTIONS.values()},
    kinds={},
)
_LOGISTICS = Domain(
    LOGISTICS,
    thing=r"\b((?:package|truck|airplane|location|city)_\d+(?:_\d+)?)\b",
    facts={"airport": "{} is an airport", "in-city": "{} is in the city {}", "at": "{} is at {}", "in": "{} is in {}"},
    verbs={"load": "load", "unload": "unload", "drive": "drive-truck", "fly": "fly-airplane"},
    kinds={"p": ("obj",), "t": ("truck",), "a": ("airplane",), "l": ("location",), "c": ("city",)},
    complete=_complete_logistics,
)
_DEPOTS = Domain(
    DEPOTS,
    thing=r"\b((?:pallet|depot|distributor|truck|crate|hoist)\d+)\b",
    facts={
        "at": "{} is at {}",
        "clear": "{} is clear",
        "available": "{} is available",
        "on": "{} is on {}",
        "in": "{} is in {}",
        "lifting": "{} is lifting {}",
    },
    verbs={"drive": "drive"} | {rf"(?:use \w+ to )?{name}": name for name in ("lift", "drop", "load", "unload")},
    kinds={"pallet": ("surface",), "crate": ("crate", "surface"), "hoist": ("hoist",), "truck": ("truck",)}
    | {"depot": ("place",), "distributor": ("place",)},
)
_DECEPTIVE = Domain(
    rename(LOGISTICS, _DECEPTIVE_ACTIONS, _DECEPTIVE_PREDICATES),
    thing=r"\b(object_\d+)\b",
    facts={
        predicate: f"{predicate} {{}}" + " {}" * (predicate in ("next", "collect", "vase"))
        for predicate in _DECEPTIVE_PREDICATES.values()
    },
    verbs={name: name for name in _DECEPTIVE_ACTIONS.values()},
    kinds={},
)

DOMAINS = {
    "blocksworld": _BLOCKSWORLD,
    "blocksworld_3": _BLOCKSWORLD,
    "mystery_blocksworld": _MYSTERY,
    "mystery_blocksworld_3": _MYSTERY,
    "logistics": _LOGISTICS,
    "depots": _DEPOTS,
    "obfuscated_deceptive_logistics": _DECEPTIVE,
}
