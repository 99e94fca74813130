"""What is left of results."""

import pytest
from tokenizers_for_tests import tokenizer_for
from tool_teams import tool_tokenizer
from trl.chat_template_utils import qwen3_chat_template

from trl_teamtr.conversation.control_tokens import SafeEncoder
from trl_teamtr.conversation.thoughts import Reading
from trl_teamtr.conversation.transcript import ToolCall
from trl_teamtr.tools.tool_user import ToolSettings, ToolUser


def page(length: int) -> str:
    """
    Gets a page.

    Args:
        length: How long.
    """
    return "word " * length


def make(tokenizer, length=16, **settings):
    return ToolUser("a", [page], tokenizer, ToolSettings(max_tool_result_length=length, **settings))


def qwen():
    return tokenizer_for(qwen3_chat_template)


@pytest.mark.parametrize("length", [8, 64])
@pytest.mark.parametrize("words", [1, 40, 2_000_000])  # the last is a page of 10 MB
def test_a_result_that_is_too_long_is_cut_and_says_so(length, words):
    tokenizer = qwen()
    user = make(tokenizer, length)
    result = user.call(ToolCall("page", f'{{"length": {words}}}'), None)
    ids = SafeEncoder(tokenizer).encode("x", {"x": result.text})
    assert len(ids) <= length and not result.failed
    if words == 1:
        assert result.text == "word "
    else:
        assert result.text.endswith(" [cut]") and result.text.startswith("wo")
    assert user.reserve(2) >= 2 * length


def test_a_call_that_could_not_be_read_is_an_error_and_calls_nothing():
    reading = Reading("", calls=(ToolCall("page"),), fault="not readable")
    (result,) = make(qwen(), 64).execute(reading, None)
    assert result.failed and "not readable" in result.text


def test_the_number_of_pauses_is_that_of_the_settings():
    assert make(qwen(), max_tool_calling_iterations=3).max_uses == 3
    assert make(qwen()).max_uses > 10**6


def test_settings_are_those_of_the_config():
    class Args:
        max_tool_calling_iterations, tool_timeout, max_tool_result_length = 2, 3.0, 4

    assert ToolSettings.of(Args) == ToolSettings(2, 3.0, 4)
    assert tool_tokenizer().response_template
