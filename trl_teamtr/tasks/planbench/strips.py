"""
Domains of STRIPS and the simulator that runs a plan: an action may be taken where all its preconditions hold, adds facts and
deletes others.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


Fact = tuple[str, ...]  # a predicate and its objects; in a schema numbers of parameters, as text, for objects


@dataclass(frozen=True)
class Schema:
    """
    An action of a domain.

    Args:
        parameters (`int`): How many objects it takes.
        needs, adds, deletes (`tuple[Fact]`): Its preconditions and effects; `("on", "0", "1")` is of its first two objects.
    """

    parameters: int
    needs: tuple[Fact, ...]
    adds: tuple[Fact, ...]
    deletes: tuple[Fact, ...]


Schemas = Mapping[str, Schema]
Step = tuple[str, ...]  # the name of an action and its objects


def read_schemas(text: str) -> dict[str, Schema]:
    """
    Schemas of one line each: `name count: needs -> effects`, facts divided by commas, deleted ones with a `-` before them.

    Args:
        text (`str`): The lines. `stack 2: holding 0, clear 1 -> on 0 1, -holding 0, -clear 1` is one.
    """
    schemas = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        head, _, body = line.partition(":")
        name, count = head.split()
        needs, effects = (part.split(",") for part in body.split("->"))
        schemas[name] = Schema(
            int(count),
            tuple(tuple(fact.split()) for fact in needs),
            tuple(tuple(fact.split()) for fact in effects if not fact.strip().startswith("-")),
            tuple(tuple(fact.strip()[1:].split()) for fact in effects if fact.strip().startswith("-")),
        )
    return schemas


def rename(schemas: Schemas, actions: Mapping[str, str], predicates: Mapping[str, str]) -> dict[str, Schema]:
    """The same schemas under other names of their actions and predicates; what is not renamed is left out of the facts."""

    def facts(old: Iterable[Fact]) -> tuple[Fact, ...]:
        return tuple((predicates[name], *objects) for name, *objects in old)

    return {
        actions[name]: Schema(schema.parameters, facts(schema.needs), facts(schema.adds), facts(schema.deletes))
        for name, schema in schemas.items()
    }


def simulate(schemas: Schemas, state: Iterable[Fact], plan: Sequence[Step]) -> set[Fact] | None:
    """
    The state after `plan`; `None` if an action of it is unknown, has the wrong number of objects, or cannot be taken.

    Args:
        schemas (`dict[str, Schema]`): The domain.
        state (`Iterable[Fact]`): The state before it.
        plan (`Sequence[Step]`): The actions, in order.
    """
    now = set(state)
    for name, *objects in plan:
        schema = schemas.get(name)
        if schema is None or len(objects) != schema.parameters:
            return None
        if not _ground(schema.needs, objects) <= now:
            return None
        # Added after deleted, as PDDL has it: what an action both deletes and adds holds
        now = (now - _ground(schema.deletes, objects)) | _ground(schema.adds, objects)
    return now


def _ground(facts: Iterable[Fact], objects: Sequence[str]) -> set[Fact]:
    return {(name, *(objects[int(place)] for place in places)) for name, *places in facts}
