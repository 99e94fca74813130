"""Tasks with a judge: who answers, and who knows."""

from trl_teamtr.tasks.judged import answer_of, answers_of, private_prompts


def talk(*messages):
    return [{"name": name, "content": text} for name, text in messages]


def test_the_judge_has_no_say_in_the_answer():
    said = talk(("a", "Was it Ann?"), ("judge", "No."), ("b", "<think>x</think>It was Bo."), ("judge", "Yes."))
    assert answer_of(said, "judge") == "It was Bo." and answer_of(said, "b") == "Yes."
    assert answers_of([said, talk(("judge", "x"))], ["judge", "judge"]) == ["It was Bo.", ""]


def test_the_truth_is_told_to_the_judge_alone():
    assert private_prompts("referee", "Bo") == {"agent_prompts": {"referee": "Bo"}, "judge": "referee"}
