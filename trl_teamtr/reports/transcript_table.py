"""Transcripts in the terminal: who said what, what only some have read, who is updated, and what the reward was made of."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import TrainerCallback

from .terminal import COLOURS


class ShownTeam(Protocol):
    """What is shown: the training of a team."""

    team: Any
    trained_members: list[Any]
    transcript_log: Any
    reward_func_names: list[str]
    reward_weights: Any


class TranscriptTable(TrainerCallback):
    """
    Shows, at each log, some of the rollouts that the last update or evaluation was made on, each text once: what a group of
    rollouts has in common comes before it. In a pipe or a file, one line for each text.

    Args:
        trainer ([`TeamTRTrainer`]): The training.
        number (`int`, *optional*): Number of rollouts; those of `transcripts.jsonl` if not given.
        console ([`~rich.console.Console`], *optional*): Where to; the standard output if not given.
    """

    def __init__(self, trainer: ShownTeam, number: int | None = None, console: Console | None = None):
        self._trainer, self._number = trainer, number
        self._console = console if console is not None else Console(highlight=False)
        self._shown: list[dict[str, Any]] | None = None

    def on_log(self, args, state, control, **kwargs):
        entries = self._trainer.transcript_log.last
        if state.is_world_process_zero and entries and entries is not self._shown:
            self._shown = entries
            if self._number != 0:
                self.show(entries[: self._number])

    def show(self, entries: Sequence[dict[str, Any]]):
        """Show rollouts of one update or evaluation, as `transcripts.jsonl` has them."""
        rows = list(self._rows(entries))
        if not self._console.is_terminal:
            for name, text in rows:
                self._console.print(Text.assemble(name, ": " if name and text else "", text), soft_wrap=True)
            return
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(12, self._console.width // 5))
        table.add_column(ratio=1, overflow="fold")
        for name, text in rows:
            table.add_row(name, text)
        self._console.print(table)

    def _rows(self, entries: Sequence[dict[str, Any]]) -> Iterator[tuple[Text, Text]]:
        first = entries[0]
        what = Text("evaluation")
        if first["agent"] is not None:
            what = Text.assemble(self._name(first["agent"]), " is updated on these")
        yield Text(f"update {first['step']}", "bold"), Text.assemble(f"stage {first['stage']}, ", what, style="bold")
        task: Any = None
        for number, entry in enumerate(entries, 1):
            if (entry["prompt"], entry["private"]) != task:
                task = entry["prompt"], entry["private"]
                for turn in entry["prompt"]:
                    yield Text(turn["role"], "dim"), Text(_printable(turn["content"]), "dim")
                for name, text in entry["private"].items():
                    yield Text.assemble(self._name(name), (" reads", "dim")), Text(_printable(text), "dim")
            yield Text(f"rollout {number}", "underline"), self._reward(entry)
            for message in entry["messages"]:
                yield from self._message(message)

    def _message(self, message: dict[str, Any]) -> Iterator[tuple[Text, Text]]:
        name, end = self._name(message["agent"]), "" if message["finished"] else " (cut)"
        if "thought" in message:
            yield Text.assemble(name, (" thinks", "dim")), Text(_printable(message["thought"]), "dim italic")
        for use in message.get("tools", []):
            yield Text.assemble(name, (" calls", "dim")), Text(_printable(use), "dim")
        yield name, Text.assemble(_printable(message["text"]), (end, "red"))

    def _reward(self, entry: dict[str, Any]) -> Text:
        """The reward, and the weighted rewards that it is the sum of; what is left of it is the updated agent's own."""
        reward, parts, rest = entry["reward"], [], entry["reward"] or 0.0
        weights = dict(zip(self._trainer.reward_func_names, self._trainer.reward_weights.tolist(), strict=True))
        for name, value in entry.get("rewards", {}).items():
            if value is not None:
                rest -= weights[name] * value
                parts.append(f"{'' if weights[name] == 1 else f'{weights[name]:g} × '}{name} {value:.3g}")
        if parts and reward is not None and abs(rest) > 1e-4:
            parts.append(f"{entry['agent']}'s own {rest:.3g}")
        shown = Text(f"reward {'none' if reward is None else f'{reward:.3g}'}", "bold")
        if parts:
            shown.append(f" = {' + '.join(parts)}", "not bold")
        if entry.get("advantage") is not None:
            shown.append(f", advantage {entry['advantage']:+.2f}", "not bold")
        return shown

    def _name(self, name: str) -> Text:
        """The name of an agent in its colour, which the line of the terminal has too."""
        trained = [member.name for member in self._trainer.trained_members]
        names = trained + [other for other in self._trainer.team.names if other not in trained]
        return Text(name, f"bold {COLOURS[names.index(name) % len(COLOURS)]}")


def _printable(text: str) -> str:
    """`text` without what a terminal would obey: a message may contain anything."""
    return "".join(each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in text)
