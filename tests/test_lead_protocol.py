"""What members rely on is what the trainer of their team has."""

import inspect

from tiny import make_team, make_trainer

from trl_teamtr.lead_protocol import Lead
from trl_teamtr.lead_trainer import LeadTrainer


def test_a_lead_has_what_its_members_need(tmp_path):
    lead = make_trainer(tmp_path, make_team(2))
    needed = [*Lead.__annotations__, *(name for name in vars(Lead) if not name.startswith("_"))]
    assert {"callback_handler", "control", "residency", "team_rewards"} == set(needed)
    assert all(name in dir(lead) for name in needed)
    assert all(member.lead is lead for member in lead.members)


def test_rewards_are_asked_for_as_they_are_given():
    assert inspect.signature(Lead.team_rewards) == inspect.signature(LeadTrainer.team_rewards)
