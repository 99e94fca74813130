"""Uploads a team to the hub as one repository."""

import os
import tempfile
from typing import Any, Protocol

from huggingface_hub import ModelCard, ModelCardData, create_repo, upload_folder


CARD = """\
# {repository}

A team of language-model agents, made with [trl-teamtr](https://huggingface.co/papers/2605.15207).

{members}

```python
from trl_teamtr import Team

team = Team.from_pretrained("{repository}")
print(team.chat("..."))
```
"""


class Pushed(Protocol):
    """What is uploaded: a [`Team`]."""

    def describe(self) -> dict[str, Any]: ...

    def save_pretrained(self, folder: str, merge: bool = False, self_contained: bool = False): ...


def push_team(
    team: Pushed,
    repository: str,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a team",
    merge: bool = False,
    self_contained: bool = False,
) -> str:
    """
    Save `team` into a new folder, upload it, and return the address of the repository.

    Args:
        team ([`Team`]): The team.
        repository (`str`): Id of the repository, which is made if there is none.
        private (`bool`, *optional*): Whether one that is made is private.
        token (`str`, *optional*): Token of the hub, if not the one that is logged in.
        revision (`str`, *optional*): Branch to push to.
        commit_message (`str`): Message of the commit.
        merge, self_contained (`bool`): As in [`~Team.save_pretrained`].

    Raises:
        `ValueError`: If a base of an adapter is a directory of this machine, where others could not find it.
    """
    entries = team.describe()["agents"]
    here = [entry for entry in entries if "endpoint" not in entry]
    for entry in here if not (merge or self_contained) else ():
        base = entry["base_model"]["id"]
        if entry["is_adapter"] and base is not None and os.path.isdir(base):
            raise ValueError(
                f"The adapter of agent {entry['name']!r} is on the base {base!r}, a directory of this machine, which others do "
                "not have. Push with `self_contained=True` or `merge=True`, or make the base one of the hub."
            )
    url = create_repo(repository, private=private, token=token, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        team.save_pretrained(folder, merge, self_contained)
        bases = sorted({entry["base_model"]["id"] for entry in here if entry["base_model"]["id"] is not None})
        known = [base for base in bases if not os.path.isdir(base)]
        members = "\n".join(f"- `{entry['name']}`{_note(entry)}" for entry in entries)
        data = ModelCardData(library_name="trl_teamtr", tags=["trl", "teamtr"], base_model=known or None)
        text = f"---\n{data.to_yaml()}\n---\n\n{CARD.format(repository=repository, members=members)}"
        ModelCard(text).save(os.path.join(folder, "README.md"))
        upload_folder(
            repo_id=repository, folder_path=folder, token=token, revision=revision, commit_message=commit_message
        )
    return str(url)


def _note(entry: dict[str, Any]) -> str:
    """What the card says of a member beside its name."""
    if "endpoint" in entry:
        return f": `{entry['model']}` at {entry['endpoint']}"
    return "" if entry["trainable"] else ", frozen during training"
