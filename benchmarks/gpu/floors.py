"""The floor of the KL on the device, and KLs whose truth is known, in each precision (benchmarks/precision.py)."""

import contextlib
import io
from pathlib import Path

from gpu.models import make_model, make_tokenizer


def measure(model: str | None, smoke: bool, folder: Path) -> dict:
    from precision import Sample, make_sample, measure_sample

    from trl_teamtr.policy.policy import add_scoring_head

    shape, size = ("smoke", (2, 8)) if smoke else ("0.6B", (8, 128))
    made = make_model(shape)
    add_scoring_head(made, 1.0)
    samples = {shape: Sample(made, make_tokenizer(made.config.vocab_size), *size)}
    if model is not None:
        samples["SmolLM2-135M-Instruct"] = make_sample(model, *size)
    found = {}
    for name, sample in samples.items():
        table = io.StringIO()
        with contextlib.redirect_stdout(table):
            figures = measure_sample(sample)
        found[name] = {**figures, "table": table.getvalue().splitlines()}
    return {"models": found}
