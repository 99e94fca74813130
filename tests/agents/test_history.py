import pytest
from tiny import make_team

from trl_teamtr.agents.history import add_event, check_history, history_of


SWAP = {"event": "replaced", "member": "y", "step": 6, "before": "old (1 parameters)", "after": "new (2 parameters)"}
ADDED = {"event": "added", "member": "z", "step": None, "after": "new"}


def test_all_members_carry_the_history_and_other_teams_keep_theirs():
    agents = make_team(3)
    others = agents[0].history
    add_event(agents[:2], SWAP)
    assert history_of(agents) == [SWAP] and others == [] and agents[2].history == []
    add_event(agents, ADDED)
    assert [agent.history for agent in agents] == [[SWAP, ADDED]] * 3
    assert history_of([]) == []


def test_the_same_history_and_none_are_let_through():
    check_history("run/checkpoint-6", [SWAP], [SWAP])
    check_history("run/checkpoint-6", [SWAP], [])
    check_history("run/checkpoint-6", [], [])


def test_a_checkpoint_from_before_a_change_is_refused_with_the_difference():
    with pytest.raises(
        ValueError, match=r"from before a change of this team: 'y' was replaced after update 6 \(old \(1"
    ):
        check_history("run/checkpoint-3", [], [SWAP])
    with pytest.raises(ValueError, match="'z' was added. Resume from a checkpoint that was saved after it"):
        check_history("run/checkpoint-3", [SWAP], [SWAP, ADDED])


def test_a_checkpoint_of_another_history_is_refused_with_the_difference():
    with pytest.raises(ValueError, match="another history than this run's: 'z' was added. Pass the checkpoint"):
        check_history("run/checkpoint-3", [ADDED], [SWAP])
    with pytest.raises(ValueError, match="'z' was added"):
        check_history("run/checkpoint-3", [SWAP, ADDED], [SWAP])
