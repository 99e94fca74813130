"""Scoring whole views, in one pass or in several."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tiny import make_team, make_trainer, next_logps

from trl_teamtr import Message
from trl_teamtr.policy.scoring import loss_mask


def test_log_probs_do_not_depend_on_the_size_of_the_passes(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), num_rounds=2)
    rollouts = trainer.team.collect([{"prompt": "au"}, {"prompt": "a"}] * 4)
    speaker = trainer.members[1].speaker
    batch = speaker.view_batch(rollouts.views["y"])
    found = [speaker.token_logps(batch, rows) * loss_mask(batch) for rows in (1, 3, 8, None)]
    assert (found[0][loss_mask(batch) == 1] < 0).all()
    for logps in found[1:]:
        torch.testing.assert_close(logps, found[0], atol=1e-5, rtol=1e-5)


def test_loss_mask_is_on_own_messages_alone(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), num_rounds=2)
    rollouts = trainer.team.collect([{"prompt": "au"}] * 3)
    batch = trainer.members[0].speaker.view_batch(rollouts.views["x"])
    own = [sum(len(m.ids) for m in t.messages if m.agent == "x") for t in rollouts.transcripts]
    assert loss_mask(batch).sum(1).tolist() == pytest.approx(own)


OWN = [(3,), (2, 3), (2, 1), (0, 2)]  # the last one is cut by the length limit


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_token_that_ended_a_message_is_scored_as_sampled_and_read_as_the_template_closes_it(tmp_path, beta):
    team = make_team(2, size=4)
    for agent in team:
        agent.processing_class.chat_template = "{% for m in messages %}{{ m['content'] }}.{% endfor %}"
        agent.model.generation_config.eos_token_id = [1, 3]  # "b" ends a message too, but "." closes it
    rows = Dataset.from_dict({"prompt": [[{"role": "user", "content": "au"}]] * 8})
    fields = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_rounds": 2, "beta": beta}
    lora = (
        LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]) if beta else None
    )  # its base is the reference
    trainer = make_trainer(tmp_path, team, dataset=rows, peft_config=lora, **fields)
    said = [[Message("x", "", ids, ids[-1] in (1, 3)), Message("y", "a", (2, 1))] for ids in OWN * 2]
    rollouts = trainer.team.collect(list(rows), said)
    views = rollouts.views["x"]
    assert {token for view in views for token in view.endings.values()} == {3}
    assert {view.completion_ids[place] for view in views for place in view.endings} == {1}

    batch = trainer._generate_and_score_completions(list(rows), rollouts)
    expected = torch.zeros(batch["completion_ids"].shape)
    for row, view in enumerate(views):
        first, sampled = len(view.prompt_ids), view.sampled_ids
        for i in range(len(sampled)):
            if view.mask[i]:
                expected[row, i] = next_logps(trainer.model, view.context[: first + i])[sampled[i]]
    on = loss_mask(batch)
    found = [trainer.speaker.token_logps(batch), trainer.speaker.token_logps(batch, 3)]
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 2  # as `update` does
    trainer._compute_loss(trainer.model, batch)
    found += [batch["old_per_token_logps"], *([batch["ref_per_token_logps"]] if beta else [])]
    for logps in found:
        torch.testing.assert_close(logps * on, expected * on, atol=1e-5, rtol=1e-5)
