"""How the scoring of two policies is divided; what it computes: test_policy_kl.py and rollouts/test_verification.py."""

from trl_teamtr.trust_region import two_policies
from trl_teamtr.trust_region.two_policies import ScoredBatch


def test_parts_cover_each_position_once():
    for keep, positions in ((7, 3), (6, 3), (2, 5)):
        parts = ScoredBatch({}, {}, keep, positions).parts
        assert [place for part in parts for place in range(keep)[part]] == list(range(keep))
        assert max(len(range(keep)[part]) for part in parts) <= positions


def test_batches_of_a_group_fit_on_the_host_and_a_larger_one_is_alone(monkeypatch):
    monkeypatch.setattr(two_policies, "LOGITS_ON_HOST", 10)
    assert two_policies._groups([4, 6, 1, 12, 3]) == [[0, 1], [2], [3], [4]]
    assert two_policies._groups([0, 0, 0]) == [[0, 1, 2]] and two_policies._groups([]) == []
