from tiny import make_team, make_trainer

from trl_teamtr import Message
from trl_teamtr.reports.rollout_metrics import measure_rollouts


def test_costs_and_lengths_are_logged_and_reuse_is_a_share_of_all_tokens(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2))
    said = [[Message("x", "a", (2, 1)), Message("y", "au", (2, 0), finished=False)]] * 2
    rollouts = trainer.team.collect([{"prompt": "au"}] * 2, said)
    rollouts.tokens_decoded, rollouts.tokens_scored, rollouts.tokens_kept = 3, 40, 5
    found = measure_rollouts(rollouts, "y", trainer.accelerator)
    logged = found.values
    assert logged["rollout/messages"] == 4
    assert (logged["rollout/tokens_decoded"], logged["rollout/tokens_scored"]) == (3, 40)
    assert logged["rollout/reused_fraction"] == 5 / 8
    assert (logged["completions/mean_length"], logged["completions/clipped_ratio"]) == (2, 1)
    read = sum(len(view.prompt_ids) for view in rollouts.views["y"])
    assert found.num_tokens == read + 8
