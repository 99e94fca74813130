import pytest

from trl_teamtr.options.checking import check


def test_only_what_is_wrong_is_refused():
    check(True, "fine")
    with pytest.raises(ValueError, match="^too small$"):
        check(False, "too small")
