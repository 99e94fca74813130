"""A trainer is what diagnostics ask for."""

from tiny import make_team, make_trainer

from trl_teamtr.diagnostics.watched import Member, Watched


def names_of(protocol):
    return {*vars(protocol).get("__annotations__", {}), *(n for n in vars(protocol) if not n.startswith("_"))}


def test_trainer_and_members_have_what_is_asked_of_them(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2))
    assert {"team", "active", "compute_returns", "log_metric"} <= names_of(Watched)
    assert not names_of(Watched) - set(dir(trainer))
    assert {"speaker", "engine", "measure_kl"} <= names_of(Member)
    assert not names_of(Member) - set(dir(trainer.members[1]))
