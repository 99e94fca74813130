import torch
from tiny import PROMPTS, make_team, make_trainer

from trl_teamtr.rollouts.turn_loop import share_backends


def speakers(transcript):
    return [message.agent for message in transcript.messages]


def test_round_robin_gives_every_agent_a_turn_in_every_round(tmp_path):
    trainer = make_trainer(tmp_path, make_team(3), num_rounds=2)
    for transcript in trainer.team.collect([{"prompt": "a"}] * 5).transcripts:
        assert speakers(transcript) == ["x", "y", "z"] * 2


def test_router_of_ones_own_decides_per_rollout(tmp_path):
    def router(transcript):
        if len(transcript.messages) == 2:
            return None
        return "y" if transcript.prompt == "u" else "x"

    trainer = make_trainer(tmp_path, make_team(2), router=router, max_turns=5)
    rollouts = trainer.team.collect([{"prompt": p} for p in ("a", "u", "a")])
    assert [speakers(t) for t in rollouts.transcripts] == [["x", "x"], ["y", "y"], ["x", "x"]]
    assert [view.num_messages for view in rollouts.views["y"]] == [0, 2, 0]


def test_distinct_prompts_get_distinct_messages_each_matched_to_its_own_row(tmp_path):
    # Nearly greedy, so that a message is a function of what the agent read
    trainer = make_trainer(tmp_path, make_team(2, 4), temperature=1e-4, num_rounds=2)
    together = trainer.team.collect([{"prompt": p} for p in PROMPTS]).transcripts
    alone = [trainer.team.collect([{"prompt": p}]).transcripts[0] for p in PROMPTS]
    assert [t.messages for t in together] == [t.messages for t in alone]
    assert [t.prompt for t in together] == PROMPTS
    assert len({str(t) for t in together}) > 1
    backwards = trainer.team.collect([{"prompt": p} for p in reversed(PROMPTS)]).transcripts
    assert [str(t) for t in backwards] == [str(t) for t in reversed(together)]


def test_private_prompts_reach_their_agent_only(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2))
    rows = [{"prompt": "a", "agent_prompts": {"x": "uaua", "y": None}}, {"prompt": "a"}]
    views = trainer.team.collect(rows).views
    secret = trainer._tokenizer("\n\nuaua")["input_ids"]
    assert len(views["x"][0].prompt_ids) == len(views["x"][1].prompt_ids) + len(secret)
    y_lengths = [len(view.prompt_ids) for view in views["y"]]
    x_texts = [len(t.messages[0].text) for t in trainer.team.collect(rows).transcripts]
    assert abs(y_lengths[0] - y_lengths[1]) <= 2 and max(x_texts) <= 2


def test_full_context_ends_the_rollout_and_is_counted(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), num_rounds=20, max_context_length=40)
    rollouts = trainer.team.collect([{"prompt": "a"}, {"prompt": "au"}])
    assert len(rollouts.full) == 2
    for views in rollouts.views.values():
        assert all(len(view.context) <= 40 for view in views)


def test_messages_that_find_no_room_are_left_out_and_counted(tmp_path):
    order = ["x"] * 6 + ["y"]
    trainer = make_trainer(
        tmp_path, make_team(2), router=lambda t: order[len(t.messages)], max_turns=7, max_context_length=36
    )
    trainer.members[0].speaker.max_view_length = 1000
    rollouts = trainer.team.collect([{"prompt": "a"}] * 20)
    assert len(rollouts.full) == 0
    assert all(view.num_messages == 1 and len(view.context) <= 36 for view in rollouts.views["y"])
    assert rollouts.num_cut > 0
    assert rollouts.num_cut == sum(view.num_cut for view in rollouts.views["y"])


def test_immediate_end_of_turn_is_a_message_of_one_token(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2))
    transcripts = trainer.team.collect([{"prompt": "a"}] * 200).transcripts
    eos = trainer._tokenizer.eos_token_id
    empty = [m for t in transcripts for m in t.messages if m.ids == (eos,)]
    assert empty and all(m.text == "" and m.finished for m in empty)
    cut = [m for t in transcripts for m in t.messages if not m.finished]
    assert cut and all(len(m.ids) == 2 and eos not in m.ids for m in cut)


class Shared:
    """A backend for several agents: it hands each its own requests, and keeps what it was asked together."""

    def __init__(self, speakers):
        self.own = {speaker.name: speaker.backend for speaker in speakers}
        self.asked = []

    def generate(self, requests):
        self.asked.append([request.agent for request in requests])
        answers = {
            name: iter(own.generate([r for r in requests if r.agent == name])) for name, own in self.own.items()
        }
        return [next(answers[request.agent]) for request in requests]


def by_letter(transcript):
    """Who speaks differs between rows of a turn: x and z where the prompt has an "a", then y."""
    turn = len(transcript.messages)
    return None if turn == 3 else "xzy"[turn] if "a" in transcript.prompt else "yxz"[turn]


def test_agents_with_one_backend_are_asked_together_and_others_in_team_order(tmp_path):
    trainer = make_trainer(tmp_path, make_team(3), router=by_letter, max_turns=3)
    rows = [{"prompt": prompt} for prompt in ("a", "u", "aa", "uu")]
    x, y, z = trainer.team.speakers
    assert share_backends([x, y, z]) == [[x], [y], [z]]
    shared = Shared([x, z])
    x.backend = z.backend = shared
    assert share_backends([x, y, z]) == [[x, z], [y]] and share_backends([y, z]) == [[y], [z]]
    transcripts = trainer.team.collect(rows).transcripts
    assert [speakers(t) for t in transcripts] == [["x", "z", "y"], ["y", "x", "z"]] * 2
    assert shared.asked == [["x", "x"], ["x", "x", "z", "z"], ["z", "z"]]


def test_messages_do_not_depend_on_who_is_asked_together(tmp_path):
    rows, found = [{"prompt": prompt} for prompt in PROMPTS], []
    for share in (False, True):
        trainer = make_trainer(tmp_path, make_team(3), router=by_letter, max_turns=3, temperature=1e-4)
        if share:
            shared = Shared(trainer.team.speakers)
            for speaker in trainer.team.speakers:
                speaker.backend = shared
        torch.manual_seed(0)
        found.append([t.messages for t in trainer.team.collect(rows).transcripts])
    assert found[0] == found[1]
