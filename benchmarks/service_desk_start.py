"""
The models that benchmarks/service_desk.py starts from: they know the service, and overlook much of it.

Two scripted agents play the service desk (benchmarks/scripted_agents.py). One base, the same for all seeds, learns both parts from agents
that overlook nothing. For each seed each agent is then fine-tuned on its own part, played carelessly: each thing that is to be done,
or to be said, is overlooked four times of ten. So what the start lacks is the habit, not the knowledge. No demonstration is of a
held-out task.
"""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from scripted_agents import Game, call, read_view, save_base, save_start

from trl_teamtr.tasks.service_desk.cases import PLANS, QUESTIONS
from trl_teamtr.tasks.service_desk.environment import ASSISTANT_TOOLS, USER_TOOLS, ServiceDesk


TASK = {"num_accounts": 3, "digits": 2, "style": "terse"}
END = "bye"  # what the user says last
CARELESS = 0.4
SHOWN, BATCH, BASE_STEPS, CARELESS_SHOWN, CARELESS_STEPS = 3000, 32, 600, 1000, 25
WORDS = [
    *(*ASSISTANT_TOOLS, *USER_TOOLS, *PLANS),
    *("plan: ", "data left: ", " GB", "bill: ", "none", "overdue", "sent", "paid", "line: ", "active", "suspended"),
    *("roaming: ", "allowed", "not allowed", "connected", "no connection", "airplane mode: ", "on", "off"),
    *("The bill was sent.", "The line is active.", "Roaming is allowed.", "The bill is paid."),
    *("plan", "data", "pay", "roam", "check", "ok", END),
]


def act_as_user(text: str, overlooks: Callable[[], bool]) -> str:
    """What the user writes next."""
    told, results = read_view(text)
    task, asked, first = told[0], told[-1], len(told) == 1
    state = results.get("check_phone", "")
    for end, tool, after in (("pay", "pay_bill", "paid"), ("roam", "toggle_roaming", END)):
        if asked.endswith(end):
            return after if tool in results else END if overlooks() else call(tool)
    if not first and not asked.endswith("check"):
        return END
    if not state or list(results)[-1] == "toggle_airplane_mode":
        return call("check_phone")
    if "airplane mode: on" in state and not overlooks():
        return call("toggle_airplane_mode")
    connection = state.partition(",")[0]
    if connection == "connected" and (not first or " " not in task):
        return END
    return f"{task} {connection}" if first else connection


def act_as_assistant(text: str, overlooks: Callable[[], bool]) -> str:
    """What the assistant writes next."""
    told, results = read_view(text)
    (number, *rest), asked, account = told[0].split(" "), told[-1], results.get("look_up", "")
    if len(told) == 1 and not account:
        return call("look_up", number)
    if asked == "paid":
        return "check" if "resume_line" in results else call("resume_line", number)
    answer = ""
    if not {"send_bill", "allow_roaming"} & set(results):
        if "bill: overdue" in account and not overlooks():
            return call("send_bill", number)
        if asked.endswith("no connection") and not overlooks():
            return call("allow_roaming", number)
    said = "pay" if "send_bill" in results else "roam" if "allow_roaming" in results else "ok"
    if account and rest[0] in QUESTIONS and not overlooks():
        plan, left, *_ = account.split(", ")
        answer = {"plan": plan, "data": left.removesuffix(" GB")}[rest[0]].partition(": ")[2]
    return f"{answer} {said}" if answer else said


GAME = Game(
    tools={"user": USER_TOOLS, "assistant": ASSISTANT_TOOLS},
    acts={"user": act_as_user, "assistant": act_as_assistant},
    words=WORDS,
    environment=ServiceDesk,
    turns={"num_rounds": 4, "stop_string": END},
)


def share_solved(rollouts, rows: list[dict]) -> float:
    """Mean reward of rollouts."""
    from trl_teamtr.tasks.service_desk.reward import service_desk_reward

    said = [transcript.as_dicts() for transcript in rollouts.transcripts]
    desks = [transcript.world.team for transcript in rollouts.transcripts]
    rewards = service_desk_reward(said, desks, [row["case"] for row in rows])
    return sum(rewards) / len(rewards)


def save_models(folder: Path, rows: list[dict], seed: int, size: str):
    """Save the base, and the models of the user and the assistant of a seed, unless they are there."""
    tokenizer, trains = GAME.make_tokenizer(), size != "smoke"

    def demonstrate():
        return GAME.make_demonstrations(rows[:SHOWN], tuple(GAME.tools), 0.0, seed=0)

    def demonstrate_carelessly(i: int, name: str):
        some = random.Random(seed + i).sample(rows, CARELESS_SHOWN)
        return GAME.make_demonstrations(some, (name,), CARELESS, seed + 1000 * (i + 1))

    save_base(folder / "base", tokenizer, demonstrate, trains * BASE_STEPS, BATCH)
    parts = {name: partial(demonstrate_carelessly, i, name) for i, name in enumerate(GAME.tools)}
    save_start(folder / f"team_{seed}", folder / "base", tokenizer, parts, trains * CARELESS_STEPS, BATCH, seed)
