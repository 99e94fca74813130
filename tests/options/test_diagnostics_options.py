"""Options of the diagnostics."""

import dataclasses

import pytest

from trl_teamtr import TeamTRConfig
from trl_teamtr.options.diagnostics_options import DiagnosticsOptions


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("diagnostics_every", 0, "`diagnostics_every` must be at least 1 stage, got 0"),
        (
            "log_message_values",
            -1,
            "`log_message_values` is a number of rollouts at each evaluation, 0 for none, got -1",
        ),
        ("message_value_rollouts", 0, "`message_value_rollouts` must be at least 1 rollout, got 0"),
        ("certificate_prompts", 0, "`certificate_prompts` must be at least 1 prompt, got 0"),
        ("certificate_gamma", 1.0, "`certificate_gamma` is 1.0, but the discounted bound is infinite at 1"),
        ("advantage_bound", 0.0, "`advantage_bound` must be positive, the largest difference of two returns, got 0.0"),
    ],
)
def test_what_means_nothing_is_refused(tmp_path, field, value, message):
    with pytest.raises(ValueError, match=message):
        TeamTRConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", **{field: value})


def test_they_are_fields_of_the_config_and_described_there():
    names = {field.name for field in dataclasses.fields(TeamTRConfig)}
    for field in dataclasses.fields(DiagnosticsOptions):
        assert field.name in names and f"\n        {field.name} (" in TeamTRConfig.__doc__
