"""How fast the device at hand is, from a few layers of a model, in seconds."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig

from ..policy.precision import AUTOCAST
from .skeleton import Skeleton


# Numbers of layers that are run; what the others take follows from the difference
DEPTHS = (1, 4)

# Steps of the two generations whose difference is timed, their rows, and the longest context
STEPS = (1, 5)
ROWS = (1, 4)
CONTEXT = 64

# Tokens of the first call, from which the size of the others follows, and about how many of these calls the others are worth
FIRST = 32
CALLS = 25


@dataclass(frozen=True)
class Speed:
    """
    Of one model, on one device.

    Args:
        forward (`float`): Seconds of a forward pass that scores, per token.
        training (`float`): Seconds of a forward and a backward pass, per token.
        step (`float`): Seconds of a decoding step of one row.
        row (`float`): Seconds that each further row adds to it.
    """

    forward: float
    training: float
    step: float
    row: float


@dataclass(frozen=True)
class Shape:
    """Rows and tokens of the batches that are timed."""

    rows: int
    length: int


def calibrate(
    skeleton: Skeleton, device: torch.device, precision: str, rows: int, length: int, budget: float
) -> Speed | None:
    """
    Time a few layers of a model.

    Args:
        skeleton ([`Skeleton`]): The model.
        device (`torch.device`): The device.
        precision (`str`): That of the autocast: `"no"`, `"bf16"` or `"fp16"`.
        rows, length (`int`): Rows of a micro-batch and tokens of a view in the run. What is timed is at most as large.
        budget (`float`): Seconds.

    Returns:
        [`Speed`], or `None` if the device is too slow to tell within the budget.
    """
    count = skeleton.config.get_text_config().num_hidden_layers
    depths = [depth for depth in DEPTHS if depth < count] or [count]
    timers = [_Timer(skeleton, depths[0], device, precision)]
    # Warms up, and tells a device that would take minutes
    if CALLS * timers[0].forward(Shape(1, min(length, 8))) > budget:
        return None
    once = timers[0].forward(Shape(1, min(length, FIRST)))
    if CALLS * once > budget:
        return None
    timers += [_Timer(skeleton, depth, device, precision) for depth in depths[1:]]
    tokens = max(FIRST, int(FIRST * budget / (2 * CALLS * max(once, 1e-6))))
    shape = Shape(min(rows, max(1, tokens // length)), min(length, tokens))

    def extrapolate(measure: Callable[[_Timer], float], repeats: int = 1) -> float:
        found = [min(measure(timer) for _ in range(repeats)) for timer in timers]
        if len(found) == 1:
            return found[0] * count / depths[0]
        by_layer = max(0.0, (found[1] - found[0]) / (depths[1] - depths[0]))
        return found[0] + by_layer * (count - depths[0])

    size = shape.rows * shape.length
    context = min(length, CONTEXT)
    one, more = (extrapolate(partial(_Timer.step, rows=rows, length=context)) for rows in ROWS)
    return Speed(
        extrapolate(lambda timer: timer.forward(shape), repeats=2) / size,
        extrapolate(lambda timer: timer.training(shape), repeats=2) / size if skeleton.trainable else 0.0,
        one,
        max(0.0, more - one) / (ROWS[1] - ROWS[0]),
    )


class _Timer:
    """A model of a few layers whose weights are all alike, since their values take no time."""

    def __init__(self, skeleton: Skeleton, depth: int, device: torch.device, precision: str):
        with torch.device("meta"):
            model = skeleton.make(depth=depth)
        model.to_empty(device=device)
        model.tie_weights()
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.fill_(0.01)
        self._model: Any = model.train()
        self._device = device
        self._dtype = AUTOCAST[precision]

    def forward(self, shape: Shape) -> float:
        with torch.no_grad():
            return self._time(lambda: self._score(shape))

    def training(self, shape: Shape) -> float:
        if not any(weight.requires_grad for weight in self._model.parameters()):
            return self.forward(shape)
        seconds = self._time(lambda: self._score(shape).sum().backward())
        self._model.zero_grad()
        return seconds

    def step(self, rows: int, length: int) -> float:
        """Seconds of a decoding step: the difference of a longer and a shorter generation."""
        short, long = (self._time(partial(self._generate, rows, length, new)) for new in STEPS)
        return max(0.0, long - short) / (STEPS[1] - STEPS[0])

    def _score(self, shape: Shape) -> torch.Tensor:
        ids = torch.zeros(shape.rows, shape.length, dtype=torch.long, device=self._device)
        mask = torch.ones_like(ids)
        mask[:, 0] = 0  # as in a padded batch, where attention reads it
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
            return self._model(input_ids=ids, attention_mask=mask, labels=ids, fused_lm_head=True).log_probs

    def _generate(self, rows: int, length: int, new: int):
        ids = torch.zeros(rows, length, dtype=torch.long, device=self._device)
        config = GenerationConfig(
            max_new_tokens=new, min_new_tokens=new, do_sample=True, pad_token_id=0, disable_compile=True
        )
        with torch.no_grad():
            self._model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)

    def _time(self, call: Callable[[], Any]) -> float:
        self._wait()
        start = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - start

    def _wait(self):
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
