"""Returns of rollouts are those of the rewards that an update of them would get, and nothing of them is logged."""

import torch
from tiny import answer_reward, make_team, make_trainer

from trl_teamtr.returns.returns import answers, weigh_rewards


def test_returns_and_no_trace(tmp_path):
    def logging_reward(completions, log_extra, log_metric, **kwargs):
        log_extra("seen", list(completions))
        log_metric("counted", 1.0)
        return [float(len(completion)) for completion in completions]

    trainer = make_trainer(
        tmp_path, make_team(2), reward_funcs=[answer_reward, logging_reward], reward_weights=[1.0, 0.5]
    )
    rows = [{"prompt": "au"}, {"prompt": "a"}] * 2
    rollouts = trainer.team.collect(rows)
    texts = answers(rollouts.transcripts)
    expected = torch.tensor(answer_reward(None, [t.as_dicts() for t in rollouts.transcripts]))
    expected += 0.5 * torch.tensor([float(len(text)) for text in texts])
    torch.testing.assert_close(trainer.compute_returns(rows, rollouts.transcripts), expected)
    assert not trainer._pending_metrics and not trainer._pending_extra_logs and trainer._rollouts is None
    assert rows == [{"prompt": "au"}, {"prompt": "a"}] * 2


def test_rows_without_any_reward_are_nan():
    rewards = torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan], [0.5, 2.0]])
    found = weigh_rewards(rewards, torch.tensor([1.0, 2.0]))
    assert found[0] == 1 and found[1].isnan() and found[2] == 4.5
