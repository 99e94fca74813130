"""How an agent's saved model takes the place of an earlier one: whole, and alone in its folder."""

import os
import re
import shutil

from .checkpoint_files import REPLACED


# What `save_pretrained` of models, adapters and tokenizers writes, in any of its forms. Left beside a model in another
# form, it would be loaded in its place.
_MODEL_FILES = re.compile(
    r"(pytorch_model|model|adapter_model)([.-].*)?\.(safetensors|bin)(\.index\.json)?"
    r"|adapter_config\.json|config\.json|generation_config\.json"
    r"|tokenizer.*|vocab.*|merges\.txt|special_tokens_map\.json|added_tokens\.json|chat_template.*"
    r"|(pre)?processor_config\.json|training_args\.bin"
)


def folder_beside(folder: str) -> str:
    """Where to write what will take the place of `folder`."""
    run_dir, name = os.path.split(folder)
    return os.path.join(run_dir, f"tmp-{name}")


def put_agent(written: str, folder: str):
    """
    Move a saved model to `folder`, where files of an earlier model are removed. Other files are kept.

    Args:
        written (`str`): What [`folder_beside`] named, with a whole model in it.
        folder (`str`): The agent's folder.
    """
    run_dir, name = os.path.split(folder)
    aside = os.path.join(run_dir, f"{REPLACED}{name}")
    shutil.rmtree(aside, ignore_errors=True)
    if os.path.isdir(folder):
        os.rename(folder, aside)
    os.rename(written, folder)
    if not os.path.isdir(aside):
        return
    for entry in os.listdir(aside):
        if not _MODEL_FILES.fullmatch(entry) and not os.path.lexists(os.path.join(folder, entry)):
            os.rename(os.path.join(aside, entry), os.path.join(folder, entry))
    shutil.rmtree(aside)


def recover_agent(folder: str):
    """Restore an earlier model that a killed [`put_agent`] has moved aside, and remove what was not put in place."""
    run_dir, name = os.path.split(folder)
    aside = os.path.join(run_dir, f"{REPLACED}{name}")
    if os.path.isdir(aside) and not os.path.isdir(folder):
        os.rename(aside, folder)
    shutil.rmtree(folder_beside(folder), ignore_errors=True)
