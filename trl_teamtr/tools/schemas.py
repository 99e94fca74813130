"""What chat templates show of tools: JSON schemas, from type hints and docstrings."""

from collections.abc import Sequence
from typing import Any

from transformers.utils import get_json_schema
from transformers.utils.chat_template_utils import DocstringParsingException, TypeHintParsingException

from .toolbox import Tool


def make_schemas(tools: Sequence[Tool], agent: str) -> list[dict[str, Any]]:
    """
    JSON schemas of functions, in the form that chat templates take.

    Args:
        tools (`Sequence[Callable]`): Functions with type hints and docstrings, as in [`~trl.GRPOTrainer`].
        agent (`str`): Whose tools they are, for messages.

    Raises:
        `ValueError`: If one has no docstring or no type hints, or two have the same name.
    """
    schemas = []
    for tool in tools:
        try:
            schemas.append(get_json_schema(tool))
        except (DocstringParsingException, TypeHintParsingException) as error:
            raise ValueError(
                f"Agent {agent!r} has the tool {tool.__name__!r}, which cannot be described to its model: {error} A tool needs a type "
                "hint for each argument, and a docstring with an `Args:` section that describes each."
            ) from error
    names = [schema["function"]["name"] for schema in schemas]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"Agent {agent!r} has several tools of the name {double[0]!r}. Rename one.")
    return schemas
