import pytest

from trl_teamtr.tasks.guess_number.dataset import make_dataset
from trl_teamtr.tasks.guess_number.rules import Hint, all_numbers, candidates
from trl_teamtr.tasks.link import make_tokenizer
from trl_teamtr.tasks.loading import hold_out, load_split


TINY = {"length": 2, "alphabet": "0123", "num_guesses": 2, "style": "terse"}


def read_terse(text: str) -> list[Hint]:
    return [Hint(word[:-3], "AB".index(word[-1]), int(word[-2])) for word in text.split()]


def test_rows_have_each_agents_hints():
    rows = make_dataset(50, seed=0, **TINY)
    assert rows.column_names == ["prompt", "secret", "alphabet", "agent_prompts"] and len(rows) == 50
    numbers = all_numbers(2, "0123")
    for row in rows:
        own = {name: read_terse(text) for name, text in row["agent_prompts"].items()}
        assert list(own) == ["a", "b"] and {hint.kind for hint in own["a"]} == {0} == {1 - h.kind for h in own["b"]}
        assert [hint.guess for hint in own["a"]] == [hint.guess for hint in own["b"]]
        assert candidates(numbers, own["a"] + own["b"]) == [row["secret"]]
        assert all(
            len(candidates(numbers, hints)) > 1 and row["secret"] in candidates(numbers, hints)
            for hints in own.values()
        )


def test_dataset_is_a_function_of_the_seed():
    first, again, other = (make_dataset(20, seed, **TINY).to_list() for seed in (1, 1, 2))
    assert first == again != other


def test_text_says_what_the_counts_are():
    (row,) = make_dataset(1, seed=0, length=2, alphabet="0123", num_guesses=2)
    (terse,) = make_dataset(1, seed=0, **TINY)
    told = {name: [f"Guess {h.guess}: {h.digits} " for h in read_terse(terse["agent_prompts"][name])] for name in "ab"}
    where = {"a": "right and in the right place.", "b": "right but in the wrong place."}
    for name in "ab":
        for line, begin in zip(row["agent_prompts"][name].split("\n"), told[name], strict=True):
            assert line.startswith(begin) and line.endswith(where[name])
    assert "2 different digits out of 0123" in row["prompt"][-1]["content"]


def test_pieces_are_dealt_to_as_many_agents_as_are_named():
    rows = make_dataset(5, seed=0, **TINY, agents=["x", "y", "z"])
    for row in rows:
        assert [len(read_terse(text)) for text in row["agent_prompts"].values()] == [2, 1, 1]


def test_rows_of_the_environment_have_no_hints():
    rows = make_dataset(5, seed=0, num_guesses=0)
    assert rows.column_names == ["prompt", "secret", "alphabet"]


def test_terse_rows_are_known_to_the_tiny_tokenizer():
    tokenizer = make_tokenizer()
    for row in make_dataset(20, seed=0, **TINY):
        for text in (row["prompt"][-1]["content"], *row["agent_prompts"].values()):
            assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"style": "long"}, "style='long'.*text, terse"),
        ({"agents": ["a"]}, "pieces of feedback for 2 to"),
        ({"agents": list("abcdefghi")}, "8 pieces"),
        ({"num_guesses": 1}, "only put together by talking"),
        ({"length": 1, "alphabet": "01", "num_guesses": 4}, "only put together by talking"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_dataset(1, 0, **settings)


@pytest.mark.parametrize("settings", [TINY, {"num_guesses": 0, "length": 2, "alphabet": "0123"}])
def test_held_out_rows_are_other_tasks(settings):
    train, held = hold_out(load_split("guess_number", "train", size=600, seed=0, **settings), 100, seed=0)

    def tasks(rows):
        return {str((row["secret"], row.get("agent_prompts"))) for row in rows}

    assert len(held) == 100 and len(train) > 300 and not tasks(train) & tasks(held)
