"""What the studies with SmolLM2 are about: their tasks, the arms, and the short cuts of the model on CPUs."""

import sys
from pathlib import Path

import pytest
import torch


sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from reproduction import hints, smollm2_replacement, team_task_arms, team_tasks  # noqa: E402
from reproduction import small_language_model as small  # noqa: E402

from trl_teamtr.conversation.rendering import PlainRenderer  # noqa: E402
from trl_teamtr.conversation.transcript import Message, Transcript  # noqa: E402
from trl_teamtr.tasks.link import make_model, make_tokenizer  # noqa: E402


def test_hints_are_split_over_the_members_and_the_single_agent_has_all():
    split, whole = (hints.make_dataset(20, 3, single) for single in (False, True))
    assert split["pairs"] == whole["pairs"] and hints.make_dataset(20, 4, False)["pairs"] != split["pairs"]
    for each, alone in zip(split, whole, strict=True):
        for name, other, pair in zip(hints.MEMBERS, reversed(hints.MEMBERS), each["pairs"], strict=True):
            assert pair in each["agent_prompts"][name] and pair not in each["agent_prompts"][other]
            assert pair in alone["agent_prompts"][hints.MEMBERS[0]]
    assert set(whole[0]["agent_prompts"]) == {hints.MEMBERS[0]}


@pytest.mark.parametrize(
    ("text", "reward"), [("K7 P2", 1.0), ("K 7", 0.5), ("P2 K1 K7", 0.5), ("7 2", 0.0), ("P2, K7.", 1.0)]
)
def test_the_reward_is_the_share_of_the_pairs(text, reward):
    assert hints.score_pairs([text], [["K7", "P2"]]) == [reward]


def test_parts_are_pairs_in_messages():
    found = hints.find_parts(["K7", "P2 K1"], ["K7", "P2"])
    assert list(found.values()) == [True, False, False, True]
    assert list(found)[1] == "message 1, pair 2"


@pytest.mark.parametrize("single", [False, True])
def test_demonstrations_begin_with_what_the_member_reads(single):
    (row,) = hints.make_dataset(1, 5, single)
    tokenizer, alone = make_tokenizer(), hints.MEMBERS[:1]
    for name in alone if single else hints.MEMBERS:
        shown = hints.demonstrate(row, name, single)
        transcript = Transcript(row["prompt"], hints.MEMBERS, row["agent_prompts"])
        if name == hints.MEMBERS[1]:
            transcript.messages.append(Message(hints.MEMBERS[0], row["pairs"][0]))
        renderer = PlainRenderer(tokenizer, name, hints.ALONE if single else hints.EXAMPLE[name], single)
        assert renderer.opening(transcript, transcript.messages) == tokenizer(shown["prompt"])["input_ids"]
        assert hints.score_pairs([shown["completion"]], [row["pairs"]]) == [
            0.5 if name == "first" and not single else 1
        ]


def test_arms_of_a_task_decode_as_many_tokens_in_as_many_updates():
    # Of an update and a row: three messages for two updates, or one of a single agent
    tokens = {"sums_team": 6, "sums_undivided": 6, "sums_turn": 25 / 4, "hints_team": (3 + 5 + 5) / 2}
    tokens |= {"sums_single": 4, "sums_context": 4, "hints_single": 5}
    cells = team_tasks.cells(range(2), "full")
    for cell in cells:
        if cell.arm in team_tasks.ARMS:
            per_update = cell.prompts * tokens.get(cell.arm, 2 * 4)
            assert per_update == pytest.approx(26 if cell.arm.startswith("hints") else 24, rel=0.05)
    by_seed = len(team_tasks.ARMS) + len(team_tasks.PARTS) + 1
    assert len({cell.name for cell in cells}) == len(cells) == 2 * by_seed + len(team_tasks.GRADIENTS)


def test_sums_are_short_and_their_parts_share_none():
    parts = [set(part["prompt"]) for part in small.make_sums(40, 0, parts=2)]
    assert [len(part) for part in parts[2:]] == [40] and all(len(part) > 60 for part in parts[:2])
    assert all(prompt.startswith("Question: ") and len(prompt) <= 15 for part in parts for prompt in part)
    assert len(set.union(*parts)) == sum(map(len, parts))


def test_the_number_of_the_other_speaker_is_one_of_the_task_and_fixed():
    rows = [{"prompt": f"Question: {a} + {b}"} for a in range(10) for b in range(10)]
    said = [team_task_arms.ask_checker(row)["agent_prompts"]["checker"] for row in rows]
    numbers = {int(text.removeprefix("solver: ").removesuffix("\n\nchecker:")) for text in said}
    assert numbers <= set(range(19)) and len(numbers) > 5
    assert said == [team_task_arms.ask_checker(row)["agent_prompts"]["checker"] for row in rows]


def test_short_cuts_leave_what_is_computed_as_it_is():
    from trl.trainer.utils import add_fused_lm_head

    model = make_model(make_tokenizer(), 0)
    add_fused_lm_head(model, temperature=0.8)
    ids = torch.randint(0, 20, (2, 6), generator=torch.Generator().manual_seed(0))
    labels = torch.where(torch.arange(6) < 4, -100, ids)
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "fused_lm_head": True}
    whole, head = model(**call).log_probs, torch.nn.Linear(4, small.LARGE_VOCABULARY + 1)
    hidden, seen = torch.randn(3, 5, 4)[:, -1:], []
    head.register_forward_pre_hook(lambda module, args: seen.append(args[0].is_contiguous()))
    outside = head(hidden)
    with small.fast_on_cpus():
        torch.testing.assert_close(model(**call).log_probs, whole)
        torch.testing.assert_close(head(hidden), outside)
    head(hidden)
    assert seen == [False, True, False]


def test_the_solver_that_comes_is_of_another_rank():
    assert small.RANK != smollm2_replacement.NEW_RANK
    assert small.make_lora(smollm2_replacement.NEW_RANK, smoke=False).layers_to_transform == small.LAYERS
    cells = smollm2_replacement.cells(range(3), "full")
    extra = {cell.stages for cell in cells if cell.arm.endswith("none")}
    assert len(cells) == 9 and extra == {smollm2_replacement.AFTER + smollm2_replacement.EXTRA}
