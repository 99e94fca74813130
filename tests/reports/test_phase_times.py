import pytest
from tiny import make_team, make_trainer

from trl_teamtr.reports.phase_times import PHASES, PhaseTimes


def test_seconds_of_a_phase_are_logged_and_those_of_one_that_failed_are_not(monkeypatch):
    clock, logged = iter([1.0, 3.5, 4.0]), []
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    times = PhaseTimes(lambda name, value: logged.append((name, value)))
    with times.measure("rollouts"):
        pass
    with pytest.raises(RuntimeError), times.measure("scoring"):
        raise RuntimeError
    assert logged == [("seconds/rollouts", 2.5)]


def test_every_update_logs_its_phases(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2))
    trainer.train()
    logs = [log for log in trainer.state.log_history if "reward" in log]
    assert len(logs) == 2
    for log in logs:
        assert {f"seconds/{phase}" for phase in PHASES} <= log.keys()
        assert all(0 < log[f"seconds/{phase}"] < log["seconds/update"] + 60 for phase in PHASES)
