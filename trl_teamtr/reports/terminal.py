"""Where a training is, in one line of the terminal; in a pipe or a file, one line for each log."""

import time
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text
from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler, ProgressCallback


COLOURS = ("blue", "dark_orange3", "green", "magenta", "red", "cyan")
_BARS, _PLAIN_BARS = " ▁▂▃▄▅▆▇█", " 12345678"


class Shown(Protocol):
    """What is shown: the training of a team."""

    @property
    def active(self) -> Any:
        """The update in progress, with its `agent`."""
        ...

    trained_members: list[Any]


class TerminalCallback(TrainerCallback):
    """
    Shows the stage, whose update it is, the reward, the KL of each agent's last update as a share of its radius, the held-out
    reward, and the time that is left.

    Args:
        trainer ([`TeamTRTrainer`]): The training.
        console ([`~rich.console.Console`], *optional*): Where to; the standard output if not given.
    """

    def __init__(self, trainer: Shown, console: Console | None = None):
        self._trainer, self._console = trainer, console if console is not None else Console(highlight=False)
        self._reward: float | None = None
        self._rise = 0.0
        self._held_out: float | None = None
        self._shares: dict[str, float | None] = {}
        self._begun = (0.0, 0)  # when, and at which update

    def on_train_begin(self, args, state, control, **kwargs):
        self._begun = (time.monotonic(), state.global_step)

    def on_step_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero and self._console.is_terminal:
            self._show(self.line(state, updating=True), end="\r")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero:
            return
        self._read(logs or {})
        if "loss" in (logs or {}) and not self._console.is_terminal:
            self._show(self.line(state))

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero and self._console.is_terminal:
            self._show(self.line(state))

    def line(self, state: Any, updating: bool = False) -> Text:
        """The line; `updating` within an update, whose number is not counted yet. In a narrow terminal it is shorter."""
        whole = self._compose(state, updating, short=False)
        if self._console.is_terminal and whole.cell_len > self._console.width:
            return self._compose(state, updating, short=True)
        return whole

    def _compose(self, state: Any, updating: bool, short: bool) -> Text:
        agents = [member.name for member in self._trainer.trained_members]
        stage, place = divmod(state.global_step if updating else max(state.global_step - 1, 0), len(agents))
        stages = -(-state.max_steps // len(agents))
        name = self._trainer.active.agent.name
        verb = "" if short else "updating " if updating else "updated "
        parts = [Text(f"stage {stage + 1}/{stages}")]
        parts.append(Text.assemble(verb, (name, self._colour(name)), f" ({place + 1}/{len(agents)})"))
        if self._reward is not None:
            parts.append(Text.assemble(f"reward {self._reward:.3f}", *self._arrow()))
        if self._shares:
            parts.append(Text.assemble("KL/δ" if self._is_unicode else "KL/radius", *self._bars(named=not short)))
        if self._held_out is not None:
            parts.append(Text(f"held-out {self._held_out:.3f}"))
        left = self._time_left(state)
        if left:
            parts.append(Text(left.removesuffix(" left") if short else left))
        return Text(" · " if self._is_unicode else " | ").join(parts)

    def _arrow(self):
        if self._rise:
            signs = "▲▼" if self._is_unicode else "+-"
            yield " "
            yield (signs[self._rise < 0], "green" if self._rise > 0 else "red")

    @property
    def _is_unicode(self) -> bool:
        return self._console.encoding.lower().startswith("utf")

    def _bars(self, named: bool):
        """For each agent a bar, full at the radius; a cross for a rejected update."""
        bars = _BARS if self._is_unicode else _PLAIN_BARS
        for name, share in self._shares.items():
            if named:
                yield (f" {name} ", self._colour(name))
            elif name == next(iter(self._shares)):
                yield " "
            if share is None:
                yield ("✗" if self._is_unicode else "x", "red")
            else:
                yield (bars[max(1, min(8, round(8 * share)))], self._colour(name))

    def _colour(self, name: str) -> str:
        names = [member.name for member in self._trainer.trained_members]
        return COLOURS[names.index(name) % len(COLOURS)]

    def _time_left(self, state: Any) -> str:
        start, first = self._begun
        done = state.global_step - first
        if not done or state.global_step >= state.max_steps:
            return ""
        seconds = (time.monotonic() - start) / done * (state.max_steps - state.global_step)
        return f"{seconds:.0f} s left" if seconds < 90 else f"{seconds / 60:.0f} min left"

    def _read(self, logs: dict[str, Any]):
        reward = logs.get("reward")
        if reward is not None:
            self._rise, self._reward = reward - (self._reward if self._reward is not None else reward), reward
        self._held_out = logs.get("eval_reward", self._held_out)
        for member in self._trainer.trained_members:
            kl, radius = (logs.get(f"agent/{member.name}/{key}") for key in ("kl", "radius"))
            if kl is not None and radius:
                self._shares[member.name] = None if logs.get(f"agent/{member.name}/rejected") else kl / radius

    def _show(self, line: Text, end: str = "\n"):
        if self._console.is_terminal:  # over the line before
            line.truncate(self._console.width, overflow="ellipsis", pad=True)
        self._console.print(line, end=end, soft_wrap=True)


def show_in_terminal(handler: CallbackHandler, trainer: Shown):
    """Replace the progress bar of transformers, if the callbacks have it, by a [`TerminalCallback`]."""
    handler.callbacks = [
        TerminalCallback(trainer) if type(callback) is ProgressCallback else callback for callback in handler.callbacks
    ]
