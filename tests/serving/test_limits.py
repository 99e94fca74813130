import pytest

from trl_teamtr.serving.limits import ServerSettings


@pytest.mark.parametrize("name", ["max_talks", "max_waiting", "max_choices", "timeout", "max_body"])
def test_a_limit_that_allows_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be positive, got 0"):
        ServerSettings(**{name: 0})


def test_an_empty_key_is_refused():
    with pytest.raises(ValueError, match="`api_key` is empty"):
        ServerSettings(api_key=" ")
