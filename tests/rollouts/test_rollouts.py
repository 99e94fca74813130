"""Rollouts that begin with what was said before."""

import pytest
from tiny import make_team, make_trainer

from trl_teamtr import Message


def test_rollouts_begin_with_what_was_said(tmp_path):
    trainer = make_trainer(tmp_path, make_team(3))
    said = [[Message("x", "a", (2, 1))], [], [Message("x", "u", (0, 1)), Message("y", "", (1,))]]
    rollouts = trainer.team.collect([{"prompt": "au"}] * 3, said)
    for transcript, messages in zip(rollouts.transcripts, said, strict=True):
        assert transcript.messages[: len(messages)] == messages
        assert [message.agent for message in transcript.messages] == ["x", "y", "z"]
    # A logged rollout, replayed: nothing is decoded, and the views score it
    again = trainer.team.collect([{"prompt": "au"}] * 3, [t.messages for t in rollouts.transcripts])
    assert again.tokens_decoded == 0
    assert again.views == rollouts.views


@pytest.mark.parametrize("message", [Message("x", "a"), Message("nobody", "a", (2, 1))])
def test_message_that_cannot_be_gone_on_from_is_refused(message, tmp_path):
    trainer = make_trainer(tmp_path, make_team(2))
    with pytest.raises(ValueError, match="Message 0 of row 1 is by .* must be one of x, y, and its ids"):
        trainer.team.collect([{"prompt": "au"}] * 2, [[], [message]])
