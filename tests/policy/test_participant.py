"""What all members have in common, wherever their models are."""

import pytest
from tiny import make_team

from trl_teamtr import Team
from trl_teamtr.policy.participant import Participant, speak_together


def test_it_cannot_speak_without_saying_how():
    with pytest.raises(TypeError, match="abstract"):
        Participant(None, None, None, None, [])


def test_a_backend_that_writes_too_few_messages_is_named():
    class Silent:
        def generate(self, requests):
            return []

    (speaker,) = Team.from_agents(make_team(1)).speakers
    speaker.backend = Silent()
    with pytest.raises(RuntimeError, match="The backend of 'x' was given 2 requests and wrote 0 messages"):
        speak_together([speaker.begin([[0], [2]])])
