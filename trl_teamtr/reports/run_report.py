"""`report.html`: what a run has done and said, in one file that opens without the internet."""

import json
import logging
import os
import re
from importlib import resources
from typing import Any

from jinja2 import Environment

from ..agents.team_file import ARGS_FILE, TEAM_FILE
from .log_file import LOG_FILE
from .run_totals import sum_up
from .transcript_log import TRANSCRIPT_FILE


logger = logging.getLogger(__name__)


REPORT_FILE = "report.html"
# What `trl-teamtr replace` has done to the team before the run went on, one replacement a line
REPLACEMENTS_FILE = "replacements.jsonl"
TEMPLATE = "report.html.jinja"

# What the file has at most of the two, so that it stays below 5 MB
MAX_LOG_BYTES, MAX_TRANSCRIPT_BYTES = 1_200_000, 3_000_000

# Keys of a log that are shown
_SHOWN = re.compile(
    r"step|reward|eval_(\w+_)?reward(_interval)?|rollout/(tokens_decoded|tokens_scored|reused_fraction)|seconds/\w+"
    r"|train_runtime|agent/.+/(kl|radius|kl_floor|rejected|backtracks|entropy|loss|kl_heldout)"
)
# Of the config, what is no place of this machine, and no default of another library
_HIDDEN = re.compile(
    r"local_rank|.*_dir|.*token.*|.*url.*|.*path.*|push_to_hub.*|hub_.*|deepspeed.*|fsdp.*|logging_.*"
)


def make_report(
    run: str, team: dict[str, Any] | None = None, config: dict[str, Any] | None = None, beside: str | None = None
) -> str:
    """
    Write the report of a run into its directory. Returns its path.

    Args:
        run (`str`): Output directory of a training.
        team, config (`dict`, *optional*): The team's `team.json` and `training_args.json`, if they are not yet there.
        beside (`str`, *optional*): Another run, whose curve is drawn beside that of this one, from the replacement of a member on.

    Raises:
        `FileNotFoundError`: If nothing was logged there.
    """
    if not os.path.isfile(os.path.join(run, LOG_FILE)):
        raise FileNotFoundError(
            f"There is no {LOG_FILE} in {run!r}. Pass the `output_dir` of a training; a run of an older version has none."
        )
    if beside is not None and not os.path.isfile(os.path.join(beside, LOG_FILE)):
        raise FileNotFoundError(f"There is no {LOG_FILE} in {beside!r}, the run to show beside {run!r}.")
    data = collect(run, team, config, beside)
    path = os.path.join(run, REPORT_FILE)
    with open(f"{path}.tmp", "w", encoding="utf-8") as file:
        file.write(render(data))
    os.replace(f"{path}.tmp", path)
    return path


def try_report(folder: str, team: dict[str, Any], args: dict[str, Any]):
    """[`make_report`], or a warning: a trained team, which is not saved yet, is worth more than its report."""
    try:
        make_report(folder, team, args)
    except Exception as error:
        logger.warning(f"No report was written: {error!r}. `trl-teamtr report {folder}` tries it again.")


def collect(
    run: str, team: dict[str, Any] | None = None, config: dict[str, Any] | None = None, beside: str | None = None
) -> dict[str, Any]:
    """What the report shows of the run in directory `run`; the arguments are those of [`make_report`]."""
    logs = [_select(log) for log in _read_lines(os.path.join(run, LOG_FILE))]
    transcripts = _read_lines(os.path.join(run, TRANSCRIPT_FILE))
    team = team if team is not None else _read(os.path.join(run, TEAM_FILE))
    config = config if config is not None else _read(os.path.join(run, ARGS_FILE))
    agents = [entry["name"] for entry in team.get("agents", [])]
    found = (re.fullmatch(r"agent/(.+)/(?:kl|loss)", key) for log in logs for key in log)
    trained = dict.fromkeys(match[1] for match in found if match)
    return {
        "name": os.path.basename(os.path.abspath(run)),
        "agents": agents or list(trained),
        "trained": list(trained),
        "logs": _thin_logs(logs),
        "replacements": _read_lines(os.path.join(run, REPLACEMENTS_FILE)),
        "curves": [_curve(each) for each in (run, beside) if each is not None],
        "totals": sum_up(logs, list(trained)),
        "transcripts": _thin_transcripts(transcripts),
        "num_transcripts": len(transcripts),
        "team": {"agents": team.get("agents", []), "rollout": team.get("rollout", {})},
        "versions": team.get("versions", {}),
        "machine": team.get("machine", {}),
        "config": {key: config[key] for key in sorted(config) if not _HIDDEN.fullmatch(key)},
    }


def _curve(run: str) -> dict[str, Any]:
    """The held-out rewards of a run from the last replacement of a member on, over the updates since then."""
    replacements = _read_lines(os.path.join(run, REPLACEMENTS_FILE))
    swap = replacements[-1] if replacements else {"unification": {}, "step": None}
    start, name = swap["step"] or 0, os.path.basename(os.path.abspath(run))
    kind = "no replacement" if not replacements else "aligned" if swap["unification"]["alignment"] else "not aligned"
    logs = [log for log in _read_lines(os.path.join(run, LOG_FILE)) if "eval_reward" in log and log["step"] >= start]
    points = [
        [log["step"] - start, log["eval_reward"], log.get("eval_reward_interval", 0)] for log in _thin(logs, 500)
    ]
    return {"name": f"{name}: {kind}", "points": points}


def render(data: dict[str, Any]) -> str:
    """The page."""
    source = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    # A script that is no code: only `</` could end it
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    return Environment(autoescape=True).from_string(source).render(name=data["name"], data=text)


def _select(log: dict[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in log.items() if _SHOWN.fullmatch(key) and value is not None}
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in shown.items()}


def _thin(items: list, most: int) -> list:
    """At most `most` of `items`, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _thin_logs(logs: list[dict]) -> list[dict]:
    """Logs of at most `MAX_LOG_BYTES`; evaluations are thinned apart, since they are few."""
    size = _size(logs)
    if size <= MAX_LOG_BYTES:
        return logs
    updates = [i for i, log in enumerate(logs) if "reward" in log]
    others = [i for i, log in enumerate(logs) if "reward" not in log]
    kept = {i for part in (updates, others) for i in _thin(part, max(2, int(len(part) * MAX_LOG_BYTES / size)))}
    return [log for i, log in enumerate(logs) if i in kept]


def _thin_transcripts(transcripts: list[dict]) -> list[dict]:
    """Transcripts of about `MAX_TRANSCRIPT_BYTES`, those of the first and the last evaluation in any case."""
    evaluated = [each["step"] for each in transcripts if each["agent"] is None]
    ends = {evaluated[0], evaluated[-1]} if evaluated else set()
    stays = [each["agent"] is None and each["step"] in ends for each in transcripts]
    others = [each for each, stay in zip(transcripts, stays, strict=True) if not stay]
    room = MAX_TRANSCRIPT_BYTES - _size([each for each, stay in zip(transcripts, stays, strict=True) if stay])
    while others and _size(others) > room:
        others = _thin(others, int(0.9 * len(others))) if len(others) > 2 else []
    kept = {id(each) for each in others}
    return [each for each, stay in zip(transcripts, stays, strict=True) if stay or id(each) in kept]


def _size(entries: list[dict]) -> int:
    return sum(len(json.dumps(each, ensure_ascii=False).encode()) for each in entries)


def _read_lines(path: str) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines; none if there is no such file. A line that a kill has cut is left out."""
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def _read(path: str) -> dict[str, Any]:
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)
