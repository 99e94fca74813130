"""The gradient that the trainer makes of groups by turn, over all groups of a team that can be listed."""

import random
from dataclasses import dataclass

import pytest
import torch
from tiny import BY_TURN, context_of, make_team, make_trainer

from trl_teamtr import Message, Transcript
from trl_teamtr.rollouts.rollouts import replay


PROMPT, LENGTH = "ua", 1  # of a message, in tokens


@dataclass
class Listed:
    """A rollout with its probability and, as a function of the agents' weights, the logarithm of that."""

    messages: list[Message]
    logp: torch.Tensor

    @property
    def probability(self) -> float:
        return self.logp.exp().item()


def letter_reward(completions, transcripts, **kwargs):
    """Differs between most rollouts."""
    said = ["".join(message["content"] or "." for message in messages) for messages in transcripts]
    return [
        (text.count("a") + 0.3 * text.count("u") - 0.2 * text.startswith("u") + 0.1 * len(text)) / 2 for text in said
    ]


def call_by_text(transcript):
    """The first agent, then another one or the same, and none after three messages or an "a": a random number of turns."""
    said = [message.text for message in transcript.messages]
    if len(said) == 3 or (said and said[-1] == "a"):
        return None
    return "y" if said and said[-1] == "u" else "x"


def list_rollouts(trainer) -> list[Listed]:
    """All rollouts, with messages of one token."""
    models, tokenizer = {member.name: member.model for member in trainer.members}, trainer._tokenizer
    done, open_ = [], [Listed([], torch.zeros(()))]
    while open_:
        rollout = open_.pop()
        name = trainer.team.rules.next_speaker(Transcript(PROMPT, trainer.team.names, messages=rollout.messages))
        if name is None:
            done.append(rollout)
            continue
        context = context_of(trainer, PROMPT, name, rollout.messages)
        logps = models[name](torch.tensor([context])).logits[0, -1].log_softmax(-1)
        for token, logp in enumerate(logps):
            message = Message(name, tokenizer.decode([token], skip_special_tokens=True), (token,), token == 1)
            open_.append(Listed([*rollout.messages, message], rollout.logp + logp))
    return done


def gradient_of_return(trainer, agent, rollouts: list[Listed]) -> list[torch.Tensor]:
    """Of the mean return, with respect to an agent's weights."""
    said = [Transcript(PROMPT, trainer.team.names, messages=rollout.messages).as_dicts() for rollout in rollouts]
    returns = torch.tensor(letter_reward(said, said))
    mean = sum(rollout.logp.exp() * value for rollout, value in zip(rollouts, returns, strict=True))
    return list(torch.autograd.grad(mean, list(agent.model.parameters()), allow_unused=True))


def list_groups(rollouts: list[Listed], name: str, credit: str) -> list[tuple[Listed, int | None, Listed, float]]:
    """Every trunk, turn and branch, with their probability."""
    found = []
    for trunk in rollouts:
        own = [turn for turn, message in enumerate(trunk.messages) if message.agent == name]
        turns = own[:1] if credit == "suffix" else own
        if not turns:
            found.append((trunk, None, trunk, trunk.probability))
        for turn in turns:
            beginning = trunk.messages[:turn]
            branches = [other for other in rollouts if other.messages[:turn] == beginning]
            total = sum(branch.probability for branch in branches)
            for branch in branches:
                found.append((trunk, turn, branch, trunk.probability / len(turns) * branch.probability / total))
    return found


def gradient_of_trainer(trainer, agent, groups, monkeypatch) -> list[torch.Tensor]:
    """Of the first pass of an update on all `groups`, each weighted by its probability."""
    turns = iter([turn for _, turn, _, _ in groups if turn is not None])

    def transcripts(rollouts):
        return [Transcript(PROMPT, trainer.team.names, messages=list(each.messages)) for each in rollouts]

    def resample(drafts):
        for number, (trunk, turn, _, _) in enumerate(groups):
            assert drafts._standing[2 * number] == len(trunk.messages)
            assert drafts._standing[2 * number + 1] == (len(trunk.messages) if turn is None else turn)
        both = [each for trunk, _, branch, _ in groups for each in (trunk, branch)]
        return replay(transcripts(both), trainer.team.speakers)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.team.turn_loop, "resample", resample)
        patch.setattr(random, "choice", lambda among: next(turns))
        rollouts = trainer.branches.grow(
            replay(transcripts([trunk for trunk, *_ in groups]), trainer.team.speakers), agent.name
        )
    assert next(turns, None) is None
    law = torch.tensor([probability for *_, probability in groups]).repeat_interleave(2)
    rollouts.weights = rollouts.weights * law * len(groups)
    return gradient_of_batch(trainer, agent, rollouts)


def gradient_of_batch(trainer, agent, rollouts) -> list[torch.Tensor]:
    rows = [{"prompt": PROMPT}] * len(rollouts.transcripts)
    trainer._begin_update(agent, rows)
    batch = agent._generate_and_score_completions(rows, rollouts)
    with trainer.residency.training(agent):
        agent._accumulate([batch])
    return [parameter.grad for parameter in agent.model.parameters()]


def start(folder, **fields):
    fields = {"max_completion_length": LENGTH, "num_generations": 2, "max_turns": 3, "advantage_clip": None} | fields
    fields["allow_silent_agents"] = True
    trainer = make_trainer(folder, make_team(2), letter_reward, **BY_TURN | fields)
    trainer._init_training_state(2, 2, 1, None, None)
    trainer._prepare_members(2, trainer.get_train_dataloader(), None)
    return trainer


def compare(found: list[torch.Tensor], mean: list[torch.Tensor], scale: float) -> float:
    """Largest difference of the gradients of the loss from `-scale` times those of the mean return, over the largest of these."""
    pairs = [(one, other) for one, other in zip(found, mean, strict=True) if other is not None]
    largest = max(other.abs().max() for _, other in pairs) * scale
    return (max((one + scale * other).abs().max() for one, other in pairs) / largest).item()


@pytest.mark.parametrize("router", [None, call_by_text])
@pytest.mark.parametrize("credit", ["suffix", "message"])
@pytest.mark.parametrize("name", ["x", "y"])
def test_the_gradient_is_that_of_the_mean_return(tmp_path, monkeypatch, router, credit, name):
    trainer = start(tmp_path, credit=credit, router=router)
    (agent,) = [member for member in trainer.members if member.name == name]
    rollouts = list_rollouts(trainer)
    assert sum(rollout.probability for rollout in rollouts) == pytest.approx(1)
    mean = gradient_of_return(trainer, agent, rollouts)
    groups = list_groups(rollouts, name, credit)
    assert sum(probability for *_, probability in groups) == pytest.approx(1)
    found = gradient_of_trainer(trainer, agent, groups, monkeypatch)
    assert compare(found, mean, (1 - 1 / 2) / LENGTH) < 1e-4


def test_so_is_that_of_groups_by_rollout_and_not_that_of_a_number_of_tokens(tmp_path):
    """The constants are the same; and the test can fail."""
    errors = {}
    for loss in ("dr_grpo", "grpo"):
        fields = {"loss_type": loss, "advantage_group": "rollout"}
        trainer = start(tmp_path / loss, router=call_by_text, **fields)
        agent, rollouts = trainer.members[0], list_rollouts(trainer)
        mean = gradient_of_return(trainer, agent, rollouts)
        pairs = [(one, other) for one in rollouts for other in rollouts]
        said = [Transcript(PROMPT, ("x", "y"), messages=list(each.messages)) for pair in pairs for each in pair]
        batch = replay(said, trainer.team.speakers)
        law = torch.tensor([one.probability * other.probability for one, other in pairs])
        batch.weights = law.repeat_interleave(2) * len(pairs)
        errors[loss] = compare(gradient_of_batch(trainer, agent, batch), mean, 0.5 / LENGTH)
    assert errors["dr_grpo"] < 1e-4 and errors["grpo"] > 1e-2
