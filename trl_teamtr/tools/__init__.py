"""Tools of agents, and the environments that these act on."""

from .environments import Environments
from .tool_user import ToolSettings, ToolUser
from .toolbox import Result, Toolbox
from .worlds import Done, World, calls_of


__all__ = ["Done", "Environments", "Result", "ToolSettings", "ToolUser", "Toolbox", "World", "calls_of"]
