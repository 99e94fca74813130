"""The LINK team that the arms of a benchmark start from."""

import os
from pathlib import Path


def save_start(path: Path, num_agents: int, seed: int, size: str):
    """
    Save the warmed-up team of a seed, unless it is there. A smaller team is the beginning of its chain. What only has to
    run (`size="smoke"`) starts from random weights: the warm-up takes most of a minute.
    """
    from trl_teamtr import Agent
    from trl_teamtr.cli.link_team import make_team, save_team
    from trl_teamtr.tasks import link

    if path.exists():
        return
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    if size == "smoke":
        tokenizer = link.make_tokenizer()
        names = link.NAMES[:num_agents]
        team = [Agent(name, link.make_model(tokenizer, i), processing_class=tokenizer) for i, name in enumerate(names)]
    else:
        team = make_team(num_agents, seed)
    save_team(team, str(part))
    part.rename(path)


def save_stand_in(path: Path) -> str:
    """A tiny model in place of SmolLM2-135M-Instruct, for what only has to run."""
    from trl_teamtr.tasks.link import make_model, make_tokenizer

    tokenizer = make_tokenizer()
    make_model(tokenizer, 0).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)
