"""Prompts that no conversation can begin with, in rows of a dataset and of a stream."""

import pytest
from datasets import Dataset, IterableDataset
from tiny import make_team, make_tokenizer, make_trainer

from trl_teamtr.conversation.prompts import check_prompt


USER = {"role": "user", "content": "a"}
SYSTEM = {"role": "system", "content": "u"}
ASSISTANT = {"role": "assistant", "content": "u"}


@pytest.mark.parametrize(
    "prompt", ["a", "", [USER], [SYSTEM, USER], [USER, ASSISTANT, USER], [USER, ASSISTANT], [USER, USER]], ids=str
)
def test_text_and_conversations_that_begin_with_the_user_are_prompts(prompt):
    check_prompt(prompt)


@pytest.mark.parametrize(
    "prompt, fault",
    [
        (None, "it has no prompt"),
        (3, "its prompt is of type int"),
        (USER, "its prompt is of type dict"),
        ([], "its prompt has no turns"),
        (["a"], "turn 0 of its prompt has no 'role'"),
        ([USER, {"role": "assistant", "content": None}], "turn 1 of its prompt has structured content or none"),
        ([SYSTEM], "its prompt is a system turn alone"),
        ([ASSISTANT, USER], "its prompt begins with an assistant turn"),
        ([SYSTEM, ASSISTANT, USER], "its prompt begins with an assistant turn"),
    ],
    ids=str,
)
def test_others_are_none_and_the_error_says_what_is(prompt, fault):
    with pytest.raises(ValueError, match=f"^{fault}.*A prompt is a string, or a list of turns .* Got "):
        check_prompt(prompt)


def test_a_row_of_a_stream_is_checked_when_its_rollout_begins(tmp_path):
    stream = IterableDataset.from_generator(lambda: iter([{"prompt": "a"}, {"prompt": None}] * 8))
    trainer = make_trainer(tmp_path, make_team(2), dataset=stream)
    with pytest.raises(ValueError, match="Row 4 of a batch of 8: it has no prompt"):
        trainer.train()


def test_turns_that_a_template_refuses_are_found_before_training_wherever_they_are(tmp_path):
    """The roles of row 2 are new; it is short, and would not be tokenized for its length."""
    team = make_team(2)
    team[1].processing_class = make_tokenizer()
    team[1].processing_class.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ raise_exception('No answers.') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    team[0].processing_class.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    rows = [{"prompt": [USER]}, {"prompt": [USER]}, {"prompt": [USER, ASSISTANT, USER]}, {"prompt": [USER]}]
    with pytest.raises(
        ValueError,
        match="Row 2 of the train dataset: The chat template of agent 'y' refuses the prompt, whose turns in the "
        "agent's view are user, assistant, user: «No answers.»",
    ):
        make_trainer(tmp_path, team, dataset=Dataset.from_list(rows))
