import random

import torch

from trl_teamtr.policy.batching import RowLimits, plan_batches, plan_passes


def anything(rows, length):
    return True


def test_rows_that_fit_are_one_batch_in_their_order():
    assert plan_batches([5, 3, 8], [2, 9, 4], max_length=17, fits=anything) == [[0, 1, 2]]
    assert plan_batches([], [], max_length=4, fits=anything) == []


def test_rows_that_would_outgrow_their_batch_wait_for_one_with_fewer_steps():
    # The first may grow by 1 token only: beside the second it would grow by 9
    assert plan_batches([16, 3, 8], [1, 9, 4], max_length=17, fits=anything) == [[1, 2], [0]]


def test_rows_of_similar_length_share_a_cache():
    def fits(rows, length):
        return rows * length <= 24

    # The two longest, 8 + 4 tokens each; then four rows of 2 + 4; then the rest
    assert plan_batches([2, 8, 2, 2, 7, 1, 2], [4] * 7, 99, fits) == [[1, 4], [0, 2, 3, 6], [5]]
    assert plan_batches([30, 1], [4, 4], 99, fits) == [[0], [1]]


def test_no_row_outgrows_any_plan():
    generator = random.Random(0)
    for _ in range(200):
        max_length, number = generator.randint(4, 40), generator.randint(0, 12)
        lengths = [generator.randint(1, max_length - 1) for _ in range(number)]
        limits = [generator.randint(1, max_length - length) for length in lengths]
        most = generator.randint(1, 200)

        def fits(rows, length, most=most):
            return rows * length <= most

        batches = plan_batches(lengths, limits, max_length, fits)
        assert sorted(row for batch in batches for row in batch) == list(range(number))
        for batch in batches:
            length = max(lengths[row] for row in batch) + max(limits[row] for row in batch)
            assert length <= max_length and (len(batch) == 1 or fits(len(batch), length))


def test_each_row_ends_at_its_own_limit():
    ends = RowLimits(torch.tensor([1, 3, 2]), width=4)
    seen = [ends(torch.zeros(3, 4 + new), None).tolist() for new in (1, 2, 3)]
    assert seen == [[True, False, False], [True, False, True], [True, True, True]]


def test_the_beams_of_a_row_have_its_limit():
    ends = RowLimits(torch.tensor([1, 2]), width=4)
    assert ends(torch.zeros(6, 5), None).tolist() == [True] * 3 + [False] * 3


def test_passes_hold_rows_of_similar_length():
    # Padded: 10 + 5 + 10 + 5 tokens, then 2 rows of 3 + 2
    assert plan_passes([3, 10, 2, 9], [2, 5, 1, 4], max_tokens=30, max_rows=9) == [[1, 3], [0, 2]]
    assert plan_passes([3, 10, 2, 9], [2, 5, 1, 4], max_tokens=60, max_rows=9) == [[0, 1, 2, 3]]
    assert plan_passes([3, 10, 2, 9], [2, 5, 1, 4], max_tokens=60, max_rows=1) == [[1], [3], [0], [2]]
    assert plan_passes([], [], max_tokens=30, max_rows=9) == []


def test_no_pass_has_more_tokens_or_rows_than_allowed_but_a_row_alone():
    generator = random.Random(0)
    for _ in range(200):
        number, max_tokens, max_rows = generator.randint(0, 12), generator.randint(1, 60), generator.randint(1, 5)
        contexts, messages = ([generator.randint(1, 20) for _ in range(number)] for _ in range(2))
        passes = plan_passes(contexts, messages, max_tokens, max_rows)
        assert sorted(row for rows in passes for row in rows) == list(range(number))
        for rows in passes:
            width = max(contexts[row] for row in rows) + max(messages[row] for row in rows)
            assert len(rows) == 1 or (len(rows) * width <= max_tokens and len(rows) <= max_rows)
