"""The progress bar of a team."""

from tiny import make_team, make_trainer

from trl_teamtr.reports.progress import TeamProgressCallback


def test_progress_bar_shows_the_reward_and_the_kl_of_the_agents_alone(tmp_path, capsys):
    trainer = make_trainer(tmp_path, make_team(2), callbacks=[TeamProgressCallback()])
    trainer.train()
    shown = capsys.readouterr().err
    assert "reward=" in shown and "x KL=" in shown and "y KL=" in shown and "2/2" in shown and "kl KL" not in shown
