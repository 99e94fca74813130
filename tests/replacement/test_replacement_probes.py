import pytest

from trl_teamtr.replacement.probes import as_rows, split_probes, talk


def test_prompts_of_all_kinds_become_rows(make_old_team):
    team = make_old_team()
    chat = [{"role": "user", "content": "a"}]
    rows = as_rows(team, ["a", {"prompt": chat, "answer": 1}], "probes")
    assert rows == [{"prompt": "a"}, {"prompt": chat, "answer": 1}]
    team.conversational = True
    assert as_rows(team, ["a"], "probes") == [{"prompt": chat}]


def test_some_are_held_out_and_at_least_one_of_each_is_there():
    rows = [{"prompt": str(i)} for i in range(20)]
    train, held_out = split_probes(rows, 10, 0.2, seed=0)
    assert len(train) == 8 and len(held_out) == 2 and not [row for row in train if row in held_out]
    assert split_probes(rows, 10, 0.2, seed=0) == (train, held_out)
    assert [len(part) for part in split_probes(rows[:2], 10, 0.01, seed=0)] == [1, 1]
    assert [len(part) for part in split_probes(rows[:2], 10, 0.99, seed=0)] == [1, 1]
    with pytest.raises(ValueError, match="at least two are needed"):
        split_probes(rows[:1], 10, 0.2, seed=0)


def test_the_same_seed_gives_the_same_talk_in_batches_of_any_size(make_old_team):
    team, rows = make_old_team(), [{"prompt": prompt} for prompt in ("a", "au", "u")]
    assert [str(each) for each in talk(team, rows, 1, 3)] == [str(each) for each in talk(team, rows, 3, 3)]
