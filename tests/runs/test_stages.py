import itertools

import pytest
from datasets import Dataset
from tiny import make_config
from torch.utils.data import DataLoader

from trl_teamtr.runs.stages import count_stages, ends_epoch, order_agents, stage_rows


def test_random_order_is_a_permutation_that_varies_and_can_be_asked_again():
    orders = ["".join(order_agents("xyz", "random", 0, stage)) for stage in range(20)]
    assert all(sorted(order) == ["x", "y", "z"] for order in orders) and len(set(orders)) > 3
    assert orders == ["".join(order_agents("xyz", "random", 0, stage)) for stage in range(20)]


def test_fixed_orders():
    assert order_agents("xyz", "sequential", 0, 3) == ["x", "y", "z"]
    assert order_agents("xyz", "reversed", 0, 3) == ["z", "y", "x"]


def test_stages_take_every_batch_once_and_go_on_with_the_next_epoch():
    batches = stage_rows([1, 1, 2, 2, 3, 3], repeats=2)
    assert list(itertools.islice(batches, 5)) == [1, 2, 3, 1, 2]


def test_stream_that_gives_no_stage_is_an_error_and_no_endless_loop():
    batches = stage_rows(iter([1, 1]), repeats=2)
    assert next(batches) == 1
    with pytest.raises(ValueError, match="Epoch 1 of the train dataset, a stream, ended before"):
        next(batches)


def test_ends_of_epochs():
    assert [step for step in range(1, 12) if ends_epoch(step, 11, 4)] == [4, 8, 11]
    assert [step for step in range(1, 12) if ends_epoch(step, 11, None)] == [11]


def test_epochs_of_a_stream_cannot_be_waited_for(tmp_path):
    stream = Dataset.from_dict({"prompt": ["a"] * 24}).to_iterable_dataset()
    with pytest.raises(ValueError, match="eval_strategy, save_strategy is 'epoch', but the ends of"):
        count_stages(DataLoader(stream), make_config(tmp_path, eval_strategy="epoch", save_strategy="epoch"), 2)


def test_count_of_updates(tmp_path):
    loader = DataLoader(Dataset.from_dict({"prompt": ["a"] * 24}), batch_size=4)
    fields = {"gradient_accumulation_steps": 2, "num_stages": None}
    assert count_stages(loader, make_config(tmp_path, num_train_epochs=2.5, **fields), 3) == (3, 24)
    assert count_stages(loader, make_config(tmp_path, max_steps=7, **fields), 3) == (3, 7)
