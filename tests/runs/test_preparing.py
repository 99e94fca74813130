"""Before the first stage every trained member has an optimizer and an engine; a frozen one has none."""

from tiny import make_team, make_trainer

from trl_teamtr import Agent


def test_trained_members_get_optimizers_and_frozen_ones_none(tmp_path):
    team = make_team(3)
    team[1] = Agent("y", team[1].model, processing_class=team[1].processing_class, trainable=False)
    trainer = make_trainer(tmp_path, team)
    trainer._init_training_state(6, 2, 3, None, None)
    trainer._prepare_members(6, trainer.get_train_dataloader(), None)
    assert [member.optimizer is not None for member in trainer.members] == [True, False, True]
    # A stage has an update of each of the two
    assert [member.num_updates for member in trainer.trained_members] == [3, 3]
    owned = [{id(p) for group in m.optimizer.param_groups for p in group["params"]} for m in trainer.trained_members]
    assert owned[0] and owned[1] and not owned[0] & owned[1]
