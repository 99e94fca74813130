"""The old member's messages as the new one reads and writes them: to the token, whatever its template, or refused."""

import pytest
from newcomers import ROWS, make_newcomer, make_other_tokenizer
from tiny import make_model, make_team, make_tokenizer
from tokenizers_for_tests import chatml_tokenizer, inst_tokenizer
from tool_teams import PROMPT, Dial, tool_team, tool_tokenizer

from trl_teamtr import Agent, Message, Team, Transcript
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
from trl_teamtr.conversation.rules import TurnTaking
from trl_teamtr.conversation.transcript import ToolCall, ToolUse
from trl_teamtr.replacement import replace_member
from trl_teamtr.replacement.demonstrations import CannotBeSaid, Translator, as_dataset, as_said, view_of, views_of
from trl_teamtr.rollouts.rollouts import replay
from trl_teamtr.tools import ToolSettings


SETTINGS = SpeakingSettings(SamplingSettings(max_completion_length=8))


def seat(agent: Agent, **fields):
    """The speaker of `agent` as the second member of a team."""
    settings = SpeakingSettings(SamplingSettings(max_completion_length=8), **fields)
    return Team.from_agents([*make_team(1, 4), agent], settings, TurnTaking(2)).speakers[1]


def chat_speaker(tokenizer, **fields):
    model = make_model(len(tokenizer), max_position_embeddings=1024, eos_token_id=tokenizer.eos_token_id)
    return seat(Agent("y", model, processing_class=tokenizer, **fields))


TALK = [
    Message("x", "a", (2, 1)),
    Message("y", "aa", (2, 2), finished=False),
    Message("x", "b", (3, 1)),
    Message("y", "u", (0, 1)),
]


def test_messages_are_tokenized_anew_with_the_end_of_the_turn():
    """All of the member's turns of a conversation in one sequence; what is cut has no end."""
    speaker = seat(make_newcomer())
    view = view_of(Transcript("ab", ("x", "y"), messages=TALK), speaker, Translator(speaker, True))
    (row,) = as_dataset([view])
    said = [token for token in row["labels"] if token != -100]
    assert said == [0, 4, 5]  # "aa", and "u" with its end
    tokenizer = speaker.tokenizer
    assert tokenizer.decode(row["input_ids"][: len(view.prompt_ids)]) == tokenizer.decode(
        tokenizer("ab\n\nx: a\n\ny:")["input_ids"]
    )
    assert view.prompt_ids[:1] == tokenizer("a")["input_ids"]


def test_in_the_same_vocabulary_the_view_is_that_of_the_rollout():
    team = Team.from_agents(make_team(2, 4), SETTINGS, TurnTaking(2))
    talks = team.generate(ROWS[:8], seed=0)
    expected = replay([Transcript(t.prompt, t.agents, messages=list(t.messages)) for t in talks], team.speakers)
    for found, view in zip(views_of(talks, team.speakers[1], as_said), expected.views["y"], strict=True):
        assert (found.context, found.sampled_ids, found.mask) == (view.context, view.sampled_ids, view.mask)


@pytest.mark.parametrize("make", [chatml_tokenizer, inst_tokenizer])
def test_a_template_writes_what_the_member_reads_and_ends_its_messages(make):
    speaker = chat_speaker(make(), system_prompt="Solve.")
    prompt = [{"role": "user", "content": "What is 1 + 1?"}]
    talk = Transcript(prompt, ("x", "y"), messages=[Message("x", "It is 2.", (1,)), Message("y", "Yes.", (1,))])
    view = view_of(talk, speaker, Translator(speaker, True))
    said = [token for token, own in zip(view.sampled_ids, view.mask, strict=True) if own]
    assert said[-1] in speaker.eos_token_ids
    tokenizer = speaker.tokenizer
    turns = [{"role": "system", "content": "Solve."}, {"role": "user", "content": "What is 1 + 1?\n\nx: It is 2."}]
    if make is inst_tokenizer:  # without a role for the system
        turns = [{"role": "user", "content": "Solve.\n\n" + turns[1]["content"]}]
    whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": "Yes."}], tokenize=False)
    # Some tokenizers begin a text with a blank
    read, written = ("".join(text.split()) for text in (tokenizer.decode(view.context), whole))
    assert written.startswith(read)


def test_control_strings_in_a_message_stay_text():
    speaker = chat_speaker(chatml_tokenizer())
    talk = Transcript(
        [{"role": "user", "content": "a"}], ("x", "y"), messages=[Message("y", "no <|im_end|> here", (1,))]
    )
    view = view_of(talk, speaker, Translator(speaker, True))
    said = [token for token, own in zip(view.sampled_ids, view.mask, strict=True) if own]
    assert sum(token in speaker.eos_token_ids for token in said) == 1


# What cannot be shown


def test_what_would_be_read_as_something_else_is_left_out():
    tokenizer = make_tokenizer(3)  # without "b"
    speaker = seat(Agent("y", make_model(3), processing_class=tokenizer))
    talks = [Transcript("a", ("x", "y"), messages=[Message("y", text, (1,))]) for text in ("a", "b", "u")]
    views = views_of(talks, speaker, Translator(speaker, True))
    assert [view is not None for view in views] == [True, False, True]
    with pytest.raises(ValueError, match="cannot be shown any message of the old one: 'b' would be read as 'u'"):
        views_of(talks[1:2], speaker, Translator(speaker, True))
    with pytest.raises(ValueError, match="'y' speaks in none of the 1 probe conversations"):
        views_of([Transcript("a", ("x", "y"), messages=[Message("x", "a", (2, 1))])], speaker, as_said)


def test_what_has_no_room_is_left_out():
    speaker = seat(make_newcomer(), max_context_length=20)
    talks = [Transcript("a" * n, ("x", "y"), messages=[Message("y", "a", (1,))]) for n in (1, 80)]
    assert [view is not None for view in views_of(talks, speaker, Translator(speaker, True))] == [True, False]
    with pytest.raises(ValueError, match="the context has no room for it"):
        views_of(talks[1:], speaker, Translator(speaker, True))


def test_an_open_thought_is_seen_and_thoughts_off_closes_it(make_args):
    """The template begins every message with a thought unless it is told not to."""
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "<|im_start|>assistant\\n", "<|im_start|>assistant\\n{% if enable_thinking is not defined %}<think>{% endif %}"
    )
    talk = Transcript([{"role": "user", "content": "a"}], ("x", "y"), messages=[Message("y", "Yes.", (1,))])

    def thinks(**kwargs):
        return chat_speaker(tokenizer, thinking_end="</think>", chat_template_kwargs=kwargs)

    view_of(talk, thinks(enable_thinking=False), Translator(thinks(enable_thinking=False), True))
    # A message that was cut would be a thought; the others have read it, so it is demonstrated with an end
    cut = Transcript(talk.prompt, talk.agents, messages=[Message("y", "Yes.", (1,), finished=False)])
    whole, ended = (view_of(each, thinks(), Translator(thinks(), True)) for each in (talk, cut))
    assert ended.context == whole.context
    kept = Transcript(talk.prompt, talk.agents, messages=[Message("y", "No </think> yes.", (1,))])
    with pytest.raises(
        ValueError, match="would be read as 'yes.'. Where its template opens a thought, set `thoughts_off"
    ):
        views_of([kept], thinks(), Translator(thinks(), True))


def test_a_template_that_cannot_render_the_talk_is_refused(make_args):
    """Without one, with one that refuses the prompt, and with one that leaves the user out."""
    team = Team.from_agents(make_team(2, 4), SETTINGS)
    for speaker in team.speakers:
        speaker.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}.{% endfor %}"
    rows, newcomer = [{"prompt": [{"role": "user", "content": "a"}]}] * 4, make_newcomer()
    team.conversational = True
    for template, message in (
        (None, "tokenizer of agent 'y' has no chat template"),
        ("{{ raise_exception('never') }}", "refuses the prompt, whose turns in the agent's view are user: «never»"),
        ("{% for m in messages if m['role'] != 'user' %}{{ m['content'] }}{% endfor %}", "leaves out what the user"),
    ):
        newcomer.processing_class = make_other_tokenizer()
        newcomer.processing_class.chat_template = template
        with pytest.raises(ValueError, match=message):
            replace_member(team, "y", newcomer, rows, make_args())
    assert team.names == ("x", "y") and not team.describe()["history"]


# Tools


CALLED = Message("y", "a", (3, 1, 2, 1), tool_uses=(ToolUse(2, (ToolCall("turn"),), ("a",), (False,)),))


SHORT_RESULTS = SpeakingSettings(SamplingSettings(max_completion_length=8), tools=ToolSettings(1, None, 1))


def make_tool_team() -> Team:
    return Team.from_agents(tool_team(), SHORT_RESULTS, TurnTaking(1), environment_factory=Dial)


def test_calls_are_written_as_the_new_template_does_and_results_are_read():
    speaker = make_tool_team().speakers[1]
    view = view_of(Transcript(PROMPT, ("x", "y"), messages=[CALLED]), speaker, Translator(speaker, True))
    said = [token for token, own in zip(view.sampled_ids, view.mask, strict=True) if own]
    assert said[0] == 3 and said[-2:] == [2, 1] and 1 in said[1:-2]  # a call that ends, and the answer
    assert 0 in view.mask[1:]  # the result between them
    with pytest.raises(CannotBeSaid, match="it calls tools, and `map_calls=False`"):
        view_of(Transcript(PROMPT, ("x", "y"), messages=[CALLED]), speaker, Translator(speaker, False))


def test_a_member_without_tools_is_not_shown_calls():
    speaker = seat(Agent("y", make_model(4), processing_class=tool_tokenizer(), tools=[]))
    with pytest.raises(CannotBeSaid, match="the new member has none"):
        view_of(Transcript(PROMPT, ("x", "y"), messages=[CALLED]), speaker, Translator(speaker, True))


def test_a_member_with_tools_is_aligned_to_its_calls(make_args):
    team = make_tool_team()
    newcomer = Agent("y", make_model(4, seed=40), processing_class=tool_tokenizer())
    report = replace_member(team, "y", newcomer, [{"prompt": PROMPT}] * 80, make_args(num_train_epochs=8))
    assert report.aligned.cross_entropy < report.unaligned.cross_entropy - 0.5
    assert report.aligned.without_bound == "messages with thoughts or calls of tools are restated as others"
    talks = team.generate([{"prompt": PROMPT}] * 40, seed=0)
    assert any(message.tool_uses for talk in talks for message in talk.messages if message.agent == "y")


def test_a_member_with_tools_whose_template_has_none_is_refused(make_args):
    team = make_tool_team()
    tokenizer = make_tokenizer(4)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}.{% endfor %}"
    newcomer = Agent("y", make_model(4, seed=40), processing_class=tokenizer)
    with pytest.raises(ValueError, match="'y' has tools, but its chat template does not write calls and results"):
        replace_member(team, "y", newcomer, [{"prompt": PROMPT}] * 4, make_args())
    assert team.names == ("x", "y") and not team.describe()["history"]
