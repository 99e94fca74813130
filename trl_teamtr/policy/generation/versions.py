"""Names and folders of the versions of an agent's weights."""

import os
import shutil


class Versions:
    """
    Names of the versions of an agent's weights, each also that of a folder: a server would go on serving the prefixes that it
    has cached under a name that it has seen.

    Args:
        root (`str`): The folder of all versions, which the server sees under the same path.
        run (`str`): A name of this run that no other run has.
        agent (`str`): Name of the agent.
    """

    def __init__(self, root: str, run: str, agent: str):
        self._root, self._stem = root, f"{run}-{agent}"
        self._number = 0

    @property
    def name(self) -> str:
        """That of the present version."""
        return f"{self._stem}-v{self._number}"

    @property
    def folder(self) -> str:
        """That of the present version."""
        return os.path.join(self._root, self.name)

    def advance(self):
        """Begin a new version."""
        self._number += 1

    def names_before(self) -> list[str]:
        """Those of the versions before the present one, the last one first."""
        return [f"{self._stem}-v{number}" for number in range(self._number - 1, 0, -1)]

    def delete(self, names: list[str]):
        """Delete the folders of some versions, and their common folder if it is then empty."""
        for name in names:
            # What a failed attempt has not finished has TRL's name for it
            for folder in (name, f".{name}.tmp"):
                shutil.rmtree(os.path.join(self._root, folder), ignore_errors=True)
        if os.path.isdir(self._root) and not os.listdir(self._root):
            os.rmdir(self._root)
