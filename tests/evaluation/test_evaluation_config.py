import pytest

from trl_teamtr.evaluation import PROTOCOLS, EvaluationConfig


def test_defaults_evaluate_the_team_once():
    config = EvaluationConfig()
    assert config.protocols == ["team"] and config.num_samples == 1 and config.k == [1] and config.threshold is None


def test_all_protocols_are_known():
    assert EvaluationConfig(protocols=list(PROTOCOLS), num_samples=4, k=[1, 4]).k == [1, 4]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"protocols": ["team", "duel"]}, "`protocols` names 'duel'; it may hold team, single, best_of_n"),
        ({"protocols": []}, "`protocols` must be a list of at least one, got \\[\\]"),
        ({"protocols": "team"}, "`protocols` must be a list of at least one, got 'team'"),
        ({"num_samples": 0}, "`num_samples` must be at least 1, got 0"),
        ({"num_samples": 4, "k": [1, 8]}, "pass@k with k=8 cannot be estimated from `num_samples=4`"),
        ({"k": [0]}, "k=0 cannot be estimated"),
        ({"k": []}, "`k` must be a list of at least one"),
        ({"k": 1}, "`k` must be a list of at least one, got 1"),
        ({"budget_samples": 0}, "`budget_samples` must be at least 1, or `None` for the team's token budget, got 0"),
        ({"debate_rounds": 0}, "`debate_rounds` must be at least 1, got 0"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**fields)
