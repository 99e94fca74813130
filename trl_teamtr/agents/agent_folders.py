"""How an agent's saved model takes the place of an earlier one: whole, and alone in its folder."""

import json
import os
import re
import shutil

from .team_file import own_folder


REPLACED = "tmp-replaced-"  # prefix of a folder's name while another takes its place

# What `save_pretrained` of models, adapters and tokenizers writes, in any of its forms. Left beside a model in another
# form, it would be loaded in its place.
MODEL_FILES = re.compile(
    r"(pytorch_model|model|adapter_model)([.-].*)?\.(safetensors|bin)(\.index\.json)?"
    r"|adapter_config\.json|config\.json|generation_config\.json"
    r"|tokenizer.*|vocab.*|merges\.txt|special_tokens_map\.json|added_tokens\.json|chat_template.*"
    r"|(pre)?processor_config\.json|training_args\.bin"
)


# Beside the model of a team of one, which is at the root of the team's folder: a whole one that takes its place
_READY = "tmp-saved-model"
_FILES = "files.json"


class AgentPlace:
    """
    Where a saved team has the model of an agent, and where one is written that will take its place.

    Args:
        root (`str`): Directory of the team.
        name (`str`): The agent's name.
        team_size (`int`): Number of agents of the team.

    Attributes:
        folder (`str`): The agent's folder.
        written (`str`): Where to write the new model.
    """

    def __init__(self, root: str, name: str, team_size: int):
        self._alone, self._apart = team_size == 1, os.path.join(root, name)
        self.folder = own_folder(root, name, team_size)
        self.written = folder_beside(self.folder, self._alone)

    def recover(self):
        """[`recover_agent`], before anything is written."""
        recover_agent(self.folder, self._alone)

    def put(self):
        """Let what is written take the place of the model that is there."""
        put_agent(self.written, self.folder)
        if self._alone:  # where an older version has put it
            remove_model(self._apart)


def folder_beside(folder: str, at_root: bool = False) -> str:
    """
    Where to write what will take the place of the model in `folder`.

    Args:
        folder (`str`): The agent's folder.
        at_root (`bool`): Whether it is the team's, which holds other things too: the agent is a team of one.
    """
    run_dir, name = os.path.split(folder)
    return os.path.join(folder, "tmp-model") if at_root else os.path.join(run_dir, f"tmp-{name}")


def put_agent(written: str, folder: str):
    """
    Move a saved model to `folder`, where files of an earlier model are removed. Other files are kept.

    Args:
        written (`str`): What [`folder_beside`] named, with a whole model in it.
        folder (`str`): The agent's folder.
    """
    if os.path.dirname(written) == folder:
        _put_at_root(written, folder)
        return
    run_dir, name = os.path.split(folder)
    aside = os.path.join(run_dir, f"{REPLACED}{name}")
    shutil.rmtree(aside, ignore_errors=True)
    if os.path.isdir(folder):
        os.rename(folder, aside)
    os.rename(written, folder)
    if not os.path.isdir(aside):
        return
    for entry in os.listdir(aside):
        if not MODEL_FILES.fullmatch(entry) and not os.path.lexists(os.path.join(folder, entry)):
            os.rename(os.path.join(aside, entry), os.path.join(folder, entry))
    shutil.rmtree(aside)


def recover_agent(folder: str, at_root: bool = False):
    """
    After a killed [`put_agent`]: put in place what was whole, or restore the earlier model, and remove what was not whole.
    """
    if at_root:
        _move_in(folder)
    else:
        run_dir, name = os.path.split(folder)
        aside = os.path.join(run_dir, f"{REPLACED}{name}")
        if os.path.isdir(aside) and not os.path.isdir(folder):
            os.rename(aside, folder)
    shutil.rmtree(folder_beside(folder, at_root), ignore_errors=True)


def remove_model(folder: str):
    """Remove the files of a model, and the folder if nothing else is in it."""
    if not os.path.isdir(folder):
        return
    for entry in os.listdir(folder):
        if MODEL_FILES.fullmatch(entry):
            os.remove(os.path.join(folder, entry))
    if not os.listdir(folder):
        os.rmdir(folder)


def _put_at_root(written: str, folder: str):
    """The team's folder cannot be renamed as a whole: from the rename on, a kill leaves what [`_move_in`] completes."""
    with open(os.path.join(written, _FILES), "w", encoding="utf-8") as file:
        json.dump(sorted(os.listdir(written)), file)
    os.rename(written, os.path.join(folder, _READY))
    _move_in(folder)


def _move_in(folder: str):
    ready = os.path.join(folder, _READY)
    if not os.path.isdir(ready):
        return
    with open(os.path.join(ready, _FILES), encoding="utf-8") as file:
        new = set(json.load(file)) - {_FILES}
    for entry in os.listdir(folder):
        if MODEL_FILES.fullmatch(entry) and entry not in new:
            os.remove(os.path.join(folder, entry))
    for entry in new & set(os.listdir(ready)):
        kept = entry == "README.md" and os.path.lexists(os.path.join(folder, entry))  # the team's own
        if not kept:
            os.replace(os.path.join(ready, entry), os.path.join(folder, entry))
    shutil.rmtree(ready)
