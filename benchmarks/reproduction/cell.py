"""One cell: a LINK team trained by one arm from one seed, and all that is measured of it."""

import gc
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from link_start import save_start


HELD_OUT = 512
HELD_OUT_LATE = 256
HELD_OUT_KL, HELD_OUT_KL_AGENTS = 256, 3  # rollouts, and the size of the teams whose regions are studied
LARGEST_TEAM = 8
LARGE = 768  # prompts of the diagnostics, each with a group of 8: 6,144 rollouts


@dataclass(frozen=True)
class Cell:
    """
    Args:
        arm (`str`): Name in `ARMS`.
        agents (`int`): Size of the team.
        prompts (`int`): Prompts per stage.
        seed (`int`): Of the team, the data and the run.
        stages (`int`): Number of stages.
        probed (`tuple[int]`): Stages, from 0, whose updates the occupancy probe measures.
        certified (`bool`): Whether the certificate is measured, in every second stage.
        smoke (`bool`): Whether it only has to run: fewer rollouts and held-out prompts.
        scale (`float`): The learning rate, in multiples of the common one.
        late (`int`, *optional*): The first stage, from 1, after which it is evaluated, on fewer tasks, where only the end of the
            curve is read; and nothing is measured on other rollouts. `None` evaluates from the start.
    """

    arm: str
    agents: int
    prompts: int
    seed: int
    stages: int = 10
    probed: tuple[int, ...] = ()
    certified: bool = False
    smoke: bool = False
    scale: float = 1.0
    late: int | None = None

    @property
    def size(self) -> str:
        """What the team that it begins with depends on."""
        return "smoke" if self.smoke else "full"

    @property
    def held_out(self) -> int:
        """Prompts of an evaluation."""
        return 4 if self.smoke else HELD_OUT if self.late is None else HELD_OUT_LATE

    @property
    def rows(self) -> int:
        """Prompts to train on."""
        return 50 if self.smoke else 5000

    @property
    def large(self) -> int:
        """Prompts of the diagnostics."""
        return 16 if self.smoke else LARGE

    @property
    def name(self) -> str:
        parts = [self.arm, f"n{self.agents}", f"p{self.prompts}", f"s{self.stages}"]
        parts += ["probed" + "-".join(map(str, self.probed))] if self.probed else []
        parts += ["certified"] if self.certified else []
        parts += ["smoke"] if self.smoke else []
        parts += [f"rate{self.scale:g}"] if self.scale != 1 else []
        parts += [f"late{self.late}"] if self.late is not None else []
        return "_".join([*parts, f"seed{self.seed}"])

    def path(self, folder: Path) -> Path:
        return folder / f"{self.name}.json"


def write_whole(path: Path, result: Any):
    """Write `result` as JSON; a file that is there is whole."""
    part = path.with_suffix(f".part{os.getpid()}")
    part.write_text(json.dumps(result))
    part.rename(path)


def shrink(cells: Iterable[Cell], size: str) -> list[Cell]:
    """`cells`, as they only have to run if `size` is `"smoke"`."""
    return [replace(cell, smoke=size == "smoke") for cell in cells]


def read(folder: Path, cells: list[Cell]) -> list[tuple[Cell, dict[str, Any]]]:
    """The results that are there."""
    return [(cell, json.loads(path.read_text())) for cell in cells if (path := cell.path(folder)).exists()]


def team_path(seed: int, folder: Path, agents: int = LARGEST_TEAM) -> Path:
    return folder / (f"team_{seed}" if agents == LARGEST_TEAM else f"team_of_{agents}_{seed}")


def prepare_team(seed: int, folder: Path, size: str, agents: int = LARGEST_TEAM) -> Path:
    """The team of a seed, of the largest size that its study needs."""
    path = team_path(seed, folder, agents)
    save_start(path, agents, seed, size)
    return path


def last_round_reward(transcripts: list[list[dict]], digits: list[list[int]], **kwargs) -> list[float]:
    """LINK's reward for the last round, in which every agent may correct what it read in the first."""
    from trl_teamtr.tasks import link

    return link.link_reward([messages[-len(own) :] for messages, own in zip(transcripts, digits, strict=True)], digits)


def make_trainer(cell: Cell, team_folder: Path, output: Path):
    from quiet import QUIET
    from transformers.trainer_callback import PrinterCallback

    from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer
    from trl_teamtr.tasks import link

    from .arms import ARMS, BASE

    settings = BASE | ({"num_generations": 2} if cell.smoke else {}) | ARMS[cell.arm]
    settings["learning_rate"] *= cell.scale
    args = TeamTRConfig(
        str(output),
        seed=cell.seed,
        num_stages=cell.stages,
        per_device_train_batch_size=settings["num_generations"] * cell.prompts,
        logging_steps=1,
        eval_strategy="steps",
        eval_on_start=True,
        eval_steps=cell.agents,
        eval_delay=(cell.late or 0) * cell.agents,
        per_device_eval_batch_size=cell.held_out,
        num_generations_eval=1,
        **settings,
        **QUIET,
    )
    trainer = TeamTRTrainer(
        [Agent(name, str(team_folder / name)) for name in link.NAMES[: cell.agents]],
        last_round_reward if args.num_rounds > 1 else link.link_reward,
        args,
        train_dataset=link.make_dataset(cell.agents, cell.rows, cell.seed),
        eval_dataset=link.make_dataset(cell.agents, cell.held_out, 10**6 + cell.seed),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def add_probes(trainer, cell: Cell):
    """The callbacks that measure. None is trained on; the one for held-out KLs draws from the run's random numbers."""
    from trl_teamtr.diagnostics.certificate_probe import CertificateProbe
    from trl_teamtr.diagnostics.heldout_kl import HeldOutKLCallback
    from trl_teamtr.diagnostics.occupancy_probe import OccupancyProbe
    from trl_teamtr.tasks import link

    from .large import LargeDiagnostics

    fresh = link.make_dataset(cell.agents, cell.large, 2 * 10**6 + cell.seed)
    if cell.agents == HELD_OUT_KL_AGENTS:
        trainer.add_callback(HeldOutKLCallback(trainer, fresh, 8 if cell.smoke else HELD_OUT_KL))
    rows = [row for row in fresh for _ in range(trainer.num_generations)]
    if cell.probed:
        trainer.add_callback(LargeDiagnostics(trainer, [OccupancyProbe(trainer)], rows, cell.probed))
    if cell.certified:
        # One rollout for each prompt, drawn independently, so that the standard error over rows is that of the change
        held_out = list(link.make_dataset(cell.agents, 4 * cell.held_out, 3 * 10**6 + cell.seed))
        half = rows[4 * cell.held_out :]
        diagnostics = LargeDiagnostics(trainer, [CertificateProbe(trainer, held_out)], half, range(0, cell.stages, 2))
        trainer.add_callback(diagnostics)


def run_cell(cell: Cell, folder: Path):
    """Train the cell's team; write its curve, and what was logged of each update."""
    gc.set_threshold(1_000_000)  # thousands of transcripts, and no cycles among them
    trainer = make_trainer(cell, prepare_team(cell.seed, folder, cell.size), folder / "trainer")
    add_probes(trainer, cell)
    trainer.train()
    logs = trainer.state.log_history
    curve = [[log["step"] // cell.agents, log["eval_reward"]] for log in logs if "eval_reward" in log]
    updates = [log for log in logs if "rollout/messages" in log]
    result = {"cell": asdict(cell), "curve": curve, "updates": [_shorten(log, cell.agents) for log in updates]}
    write_whole(cell.path(folder), result)


KEPT = ("occupancy/", "certificate/", "importance/", "diagnostics/", "rollout/tokens", "out_of_region", "team/reward")


def _shorten(log: dict[str, Any], agents: int) -> dict[str, Any]:
    """Of what was logged of an update, what the studies read; `agent/{name}/...` without the name."""
    found = {"stage": (log["step"] - 1) // agents, "position": (log["step"] - 1) % agents}
    for name, value in log.items():
        if name.startswith(KEPT):
            found[name] = value
        elif name.startswith("agent/"):
            found[name.split("/", 2)[2]] = value
    return found
