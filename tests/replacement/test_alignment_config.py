import pytest

from trl_teamtr.replacement import AlignmentConfig


REFUSED = {
    "objective": ("l2", "one of 'ce', 'kl', got 'l2'"),
    "held_out_fraction": (1.0, "between 0 and 1, got 1.0"),
    "num_probes": (1, "at least 2, got 1"),
    "generation_batch_size": (0, "at least 1, got 0"),
    "eval_steps": (0, "at least 1, got 0"),
    "early_stopping_patience": (0, "at least 1, got 0"),
    "samples_per_prompt": (0, "at least 1, got 0"),
    "return_width": (0.0, "positive, got 0.0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_values_are_refused(name):
    value, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"`{name}`.*{message}"):
        AlignmentConfig(**{name: value})


def test_defaults_unify_everything():
    args = AlignmentConfig()
    assert args.take_system_prompt and args.thoughts_off and args.map_calls and args.align
    assert args.thoughts_off_kwargs == {"enable_thinking": False} and args.num_probes == 500
