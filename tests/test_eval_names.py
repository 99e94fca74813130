from datasets import Dataset
from tiny import make_team, make_trainer

from trl_teamtr.eval_names import name_by_dataset


def test_only_the_names_of_several_datasets_are_put_in_front():
    for prefix, name in (("eval", "reward"), ("eval_hard", "hard_reward"), ("test", "reward")):
        metrics = {"reward": [1.0]}
        name_by_dataset(metrics, prefix)
        assert metrics == {name: [1.0]}


def rows(value):
    return Dataset.from_dict({"prompt": ["a", "u"] * 4, "value": [value] * 8})


def by_dataset(completions, value, **kwargs):
    return value


def test_each_dataset_has_a_reward_of_its_own_and_the_best_model_can_be_chosen_by_one(tmp_path):
    trainer = make_trainer(
        tmp_path,
        make_team(2),
        reward_funcs=by_dataset,
        dataset=rows(0.5),
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="best",
        metric_for_best_model="eval_hard_reward",
        greater_is_better=True,
    )
    trainer.eval_dataset = {"hard": rows(0.0), "easy": rows(1.0)}
    metrics = trainer.evaluate()
    assert metrics["eval_hard_reward"] == 0.0 and metrics["eval_easy_reward"] == 1.0
    assert "eval_reward" not in metrics
    trainer.train()
    assert trainer.state.best_metric == 0.0
