"""Log-ratios of messages against those that the enumeration of a tiny team gives."""

import pytest
import torch
from tiny import enumerate_rollouts, make_team, make_trainer, replay

from trl_teamtr.rollouts.stage_weights import ScoredView, StageWeights
from trl_teamtr.trust_region.snapshot import Snapshot


PROMPT = "au"


@pytest.mark.parametrize("rounds", [1, 2])
def test_log_ratios_of_two_updates(tmp_path, rounds):
    trainer = make_trainer(tmp_path, make_team(2), num_rounds=rounds)
    start = enumerate_rollouts(trainer, PROMPT)
    chosen = range(0, len(start), max(1, len(start) // 300))
    rollouts = replay(trainer, PROMPT, [start[i] for i in chosen])
    weights = StageWeights(rollouts)
    assert weights.log_ratios.abs().sum() == 0
    for number, agent in enumerate(trainer.members):
        snapshot = Snapshot(agent.engine, with_optimizer=False)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for param in agent.model.parameters():
                param += 0.2 * torch.randn(param.shape, generator=generator)
        scored = ScoredView(agent.speaker, rollouts, snapshot, batch_size=400)
        weights.add(agent.name, scored)
        now = enumerate_rollouts(trainer, PROMPT)
        for row, i in enumerate(chosen):
            for turn, message in enumerate(start[i].messages):
                exact = now[i].logps[turn] - start[i].logps[turn]
                assert weights.log_ratios[row, turn].item() == pytest.approx(exact, abs=1e-4), (agent.name, message)


def test_turns_and_silent_agents(tmp_path):
    def first_only(transcript):
        return "x" if not transcript.messages else ("y" if len(transcript.messages) == 1 and PROMPT else None)

    trainer = make_trainer(tmp_path, make_team(3), router=first_only, allow_silent_agents=True)
    rollouts = trainer.team.collect([{"prompt": PROMPT}] * 3)
    weights, silent = StageWeights(rollouts), trainer.members[2]
    assert weights.turns_of("x").tolist() == [[True, False]] * 3
    assert not weights.turns_of("z").any()
    scored = ScoredView(silent.speaker, rollouts, Snapshot(silent.engine, with_optimizer=False), batch_size=3)
    weights.add("z", scored)
    assert weights.log_ratios.tolist() == [[0, 0]] * 3
