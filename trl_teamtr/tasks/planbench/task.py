"""PlanBench: plans in blocks world, logistics and depots, also under misleading names (task 1, plan generation: 2270 rows)."""

import json
import re
from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from ..answers import final_text
from ..published import Row, Source, as_dataset
from .domains import DOMAINS, Domain
from .strips import Fact, Step, simulate


def _unpack(content: Any, path: str) -> list[Row]:
    """The rows of a file of the repository, which names its domain once."""
    if isinstance(content, list):
        return content
    return [{"domain": content.get("domain")} | row for row in content["instances"]]


SOURCE = Source(
    "planbench",
    "tasksource/planbench",
    ("domain", "query"),
    licence="MIT (LLMs-Planning, https://github.com/karthikv792/LLMs-Planning)",
    config="task_1_plan_generation",
    files=("plan-bench/prompts/*/task_1_plan_generation.json",),
    unpack=_unpack,
)
INSTRUCTION = "End with the plan between [PLAN] and [PLAN END], one action on each line."
_STATEMENT = re.compile(r"conditions I have that,? (.*?)\.\s*My goal is to have that (.*?)\.\s", re.DOTALL)


def make_dataset(
    dataset_path: str | None = None, revision: str | None = None, domains: Sequence[str] | None = None
) -> Dataset:
    """
    Rows with `prompt`, `domain`, and the facts at the beginning and at the goal as JSON: `initial`, `goal`.

    Args:
        dataset_path, revision: As for [`~trl_teamtr.tasks.published.Source.read`].
        domains (`Sequence[str]`, *optional*): Those to take. Defaults to all of `DOMAINS`.

    Raises:
        `ValueError`: If a domain is not known, no row is of `domains`, or a prompt does not state its task as PlanBench does.
    """
    wanted, rows = set(domains or DOMAINS), []
    if unknown := wanted - set(DOMAINS):
        raise ValueError(f"PlanBench has no domain {', '.join(sorted(unknown))}. Choose of {', '.join(DOMAINS)}.")
    for row in SOURCE.read(dataset_path, revision):
        if row["domain"] not in DOMAINS:
            raise ValueError(
                f"No simulator for PlanBench's domain {row['domain']!r}; there is one of {', '.join(DOMAINS)}."
            )
        if row["domain"] in wanted:
            domain = DOMAINS[row["domain"]]
            initial, goal = read_statement(domain, row["query"])
            facts = {"initial": json.dumps(initial + domain.implied(initial + goal)), "goal": json.dumps(goal)}
            rows.append({"prompt": row["query"].rstrip(), "domain": row["domain"]} | facts)
    if not rows:
        raise ValueError(f"There is no row of the domain(s) {', '.join(sorted(wanted))}.")
    return as_dataset(rows, INSTRUCTION)


def read_statement(domain: Domain, query: str) -> tuple[list[Fact], list[Fact]]:
    """
    The facts at the beginning and at the goal, of the last statement of a prompt: those before it are examples.

    Raises:
        `ValueError`: If it is not worded as in PlanBench.
    """
    found = _STATEMENT.search(query.rpartition("[STATEMENT]")[2] + " ")
    if found is None:
        raise ValueError(
            "A prompt of PlanBench says 'As initial conditions I have that, ... My goal is to have that ...'."
        )
    initial, goal = (
        [domain.read_fact(part.strip()) for part in re.split(r", | and ", text) if part.strip()]
        for text in found.groups()
    )
    return initial, goal


def read_plan(domain: Domain, text: str) -> list[Step]:
    """
    The actions of the last plan in `text`: the lines after the last `[PLAN]`, or all if there is none, up to `[PLAN END]`. Lines
    that begin with no action of the domain are passed over.
    """
    parts = re.split(r"\[PLAN\]", text)
    lines = parts[-1].partition("[PLAN END]")[0].splitlines()
    return [step for step in map(domain.read_step, lines) if step is not None]


def reaches(text: str, domain: str, initial: str, goal: str) -> bool:
    """Whether the plan in `text` can be taken from the beginning, and its end has all facts of the goal."""
    known = DOMAINS[domain]
    plan = read_plan(known, text)
    state = simulate(known.schemas, map(tuple, json.loads(initial)), plan)
    return bool(plan) and state is not None and set(map(tuple, json.loads(goal))) <= state


def reward(completions: list, domain: list[str], initial: list[str], goal: list[str], **kwargs: Any) -> list[float]:
    """1 where the plan of an answer is executable and reaches the goal, else 0."""
    rows = zip(completions, domain, initial, goal, strict=True)
    return [float(reaches(final_text(said), *row)) for said, *row in rows]


def read_answer(text: str, row: dict[str, Any]) -> str:
    """The plan in a message, in PDDL; empty if there is none."""
    return "\n".join(" ".join(step) for step in read_plan(DOMAINS[row["domain"]], final_text(text)))
