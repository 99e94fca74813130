"""What templates are told of tools."""

import pytest

from trl_teamtr.tools.schemas import make_schemas


def search(query: str, limit: int = 3) -> str:
    """
    Searches.

    Args:
        query: What for.
        limit: How many at most.
    """


def untold(query: str) -> str:
    return query


def untyped(query):
    """
    Searches.

    Args:
        query: What for.
    """


def test_schemas_are_made_from_hints_and_docstrings():
    (schema,) = make_schemas([search], "a")
    function = schema["function"]
    assert function["name"] == "search" and function["parameters"]["required"] == ["query"]
    assert function["parameters"]["properties"]["limit"] == {"type": "integer", "description": "How many at most."}


@pytest.mark.parametrize("tool", [untold, untyped])
def test_a_tool_that_cannot_be_described(tool):
    with pytest.raises(ValueError, match=f"Agent 'a' has the tool '{tool.__name__}', which cannot be described"):
        make_schemas([tool], "a")


def test_two_tools_of_one_name():
    with pytest.raises(ValueError, match="several tools of the name 'search'"):
        make_schemas([search, search], "a")
