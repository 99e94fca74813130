"""The simulator against the validator of unified-planning, on random walks and on plans with mistakes, in all domains."""

import random

import pytest
from plan_cases import QUERIES

from trl_teamtr.tasks.planbench.domains import BLOCKS, DEPOTS, DOMAINS, LOGISTICS
from trl_teamtr.tasks.planbench.strips import read_schemas, rename, simulate
from trl_teamtr.tasks.planbench.task import read_statement


def begin(domain):
    initial, _ = read_statement(DOMAINS[domain], QUERIES[domain])
    return initial + DOMAINS[domain].implied(initial)


def all_steps(schemas, state, rng):
    """Every action that can be taken, in random order."""
    objects = sorted({name for _, *names in state for name in names})
    steps = []
    for name, schema in schemas.items():
        partial = [()]
        for _ in range(schema.parameters):
            partial = [(*head, each) for head in partial for each in objects]
        steps += [(name, *names) for names in partial if simulate(schemas, state, [(name, *names)]) is not None]
    rng.shuffle(steps)
    return steps


def walk(schemas, state, rng, length):
    plan = []
    for _ in range(length):
        steps = all_steps(schemas, state, rng)
        if not steps:
            break
        plan.append(steps[0])
        state = simulate(schemas, state, plan[-1:])
    return plan, state


def spoil(plan, objects, rng):
    """The plan with one mistake, which may be none."""
    plan, place = list(plan), rng.randrange(len(plan))
    kind = rng.randrange(3)
    if kind == 0:
        del plan[place]
    elif kind == 1:
        plan.insert(place, rng.choice(plan))
    else:
        step = list(plan[place])
        step[rng.randrange(1, len(step))] = rng.choice(objects)
        plan[place] = tuple(step)
    return plan


def make_problem(schemas, initial, goal):
    """The same domain and task for unified-planning."""
    from unified_planning.model import Fluent, InstantaneousAction, Object, Problem
    from unified_planning.shortcuts import BoolType, UserType

    thing, problem = UserType("thing"), Problem("p")
    facts = [fact for schema in schemas.values() for fact in (*schema.needs, *schema.adds, *schema.deletes)] + initial
    arities = {name: len(places) for name, *places in facts}
    fluents = {
        name: Fluent(name, BoolType(), **{f"a{i}": thing for i in range(size)}) for name, size in arities.items()
    }
    for fluent in fluents.values():
        problem.add_fluent(fluent, default_initial_value=False)
    names = sorted({name for _, *own in [*initial, *goal] for name in own})
    objects = {name: Object(name, thing) for name in names}
    problem.add_objects(objects.values())
    for name, schema in schemas.items():
        action = InstantaneousAction(name, **{f"p{i}": thing for i in range(schema.parameters)})
        ground = lambda fact, action=action: fluents[fact[0]](*(action.parameters[int(i)] for i in fact[1:]))  # noqa: E731
        for fact in schema.needs:
            action.add_precondition(ground(fact))
        for fact in schema.deletes:
            action.add_effect(ground(fact), False)
        for fact in schema.adds:
            action.add_effect(ground(fact), True)
        problem.add_action(action)
    for predicate, *own in initial:
        problem.set_initial_value(fluents[predicate](*(objects[name] for name in own)), True)
    for predicate, *own in goal:
        problem.add_goal(fluents[predicate](*(objects[name] for name in own)))
    return problem, objects


def is_valid(problem, objects, plan):
    from unified_planning.engines import SequentialPlanValidator
    from unified_planning.engines.results import ValidationResultStatus
    from unified_planning.plans import ActionInstance, SequentialPlan

    steps = [
        ActionInstance(
            problem.action(name), tuple(problem.environment.expression_manager.ObjectExp(objects[o]) for o in own)
        )
        for name, *own in plan
    ]
    found = SequentialPlanValidator(environment=problem.environment).validate(problem, SequentialPlan(steps))
    return found.status == ValidationResultStatus.VALID


@pytest.mark.parametrize("domain", QUERIES)
def test_verdicts_are_those_of_unified_planning(domain):
    pytest.importorskip("unified_planning")
    schemas, rng, verdicts = DOMAINS[domain].schemas, random.Random(0), []
    initial = begin(domain)
    things = sorted({name for _, *names in initial for name in names})
    for _ in range(3):
        plan, end = walk(schemas, initial, rng, 5)
        goal = rng.sample(sorted(end - set(initial)) or sorted(end), 1)
        problem, objects = make_problem(schemas, initial, goal)
        for tried in [plan, *(spoil(plan, things, rng) for _ in range(5))]:
            state = simulate(schemas, initial, tried)
            verdicts.append(state is not None and set(goal) <= state)
            assert verdicts[-1] == is_valid(problem, objects, tried), (initial, goal, tried)
    assert 3 <= sum(verdicts) < len(verdicts)


def test_an_action_needs_its_facts_and_objects():
    state = {("clear", "a"), ("ontable", "a"), ("handempty",)}
    assert simulate(BLOCKS, state, [("pick-up", "a")]) == {("holding", "a")}
    assert simulate(BLOCKS, state, []) == state
    for step in [("pick-up",), ("pick-up", "a", "a"), ("pick-up", "b"), ("fly", "a"), ("put-down", "a")]:
        assert simulate(BLOCKS, state, [step]) is None


def test_what_is_deleted_and_added_holds():
    schemas = read_schemas("drive 2: at 0 -> at 1, -at 0")
    assert simulate(schemas, {("at", "x")}, [("drive", "x", "x")]) == {("at", "x")}


def test_a_renamed_domain_is_the_same():
    other = rename(
        BLOCKS,
        {name: name.upper() for name in BLOCKS},
        {p: p for p in ("clear", "ontable", "handempty", "holding", "on")},
    )
    assert list(other) == ["PICK-UP", "PUT-DOWN", "STACK", "UNSTACK"] and other["STACK"] == BLOCKS["stack"]
    assert len(LOGISTICS) == 6 and len(DEPOTS) == 5
