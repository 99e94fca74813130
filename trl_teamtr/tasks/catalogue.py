"""The published benchmarks by name: where they are, how they are scored, and what stands in for them offline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from datasets import Dataset

from . import aime24, aime25, arbench_dc, arbench_gn, arbench_sp, autologi, math500, synthetic, zebralogic
from .planbench import task as planbench
from .published import Source
from .reasoning_gym import reasoning_gym_reward
from .tau2.dataset import make_dataset as make_tau2
from .tau2.reward import tau2_reward


STAND_IN = "synthetic"  # `zebralogic:synthetic`


@dataclass(frozen=True)
class Benchmark:
    """
    A published benchmark.

    Args:
        make_dataset (`Callable`): Makes its rows, of `dataset_path`, `revision` and its own settings.
        reward (`Callable`): Scores answers, and is the reward of its name.
        source (`Source`, *optional*): Where its rows are; `None` if a package has them.
        stand_in (`Callable`, *optional*): Makes rows without a download, of `size`, `seed` and its own settings.
        stand_in_reward (`Callable`, *optional*): Their scorer, if it is another.
        read_answer (`Callable[[str, dict], str]`, *optional*): The answer in a message to a row, by which votes are counted.
        environment (`str`, *optional*): Dotted path of the environment that it needs.
        acted (`bool`): Whether the environment's own reward is its measure, in place of `reward`.
        judged (`bool`): Whether a frozen member of the team knows the truth (`trl_teamtr.tasks.judged`).
        graded (`bool`): Whether its measure is the mean reward, rather than the share of answers that are right.
    """

    make_dataset: Callable[..., Dataset]
    reward: Callable[..., Any]
    source: Source | None = None
    stand_in: Callable[..., Dataset] | None = None
    stand_in_reward: Callable[..., Any] | None = None
    read_answer: Callable[[str, dict[str, Any]], str] | None = None
    environment: str | None = None
    acted: bool = False
    judged: bool = False
    graded: bool = False


def _of_module(module: Any, **fields: Any) -> Benchmark:
    """The benchmark of a module with `SOURCE`, `make_dataset` and `reward`."""
    return Benchmark(module.make_dataset, module.reward, module.SOURCE, **fields)


_HANOI = {"stand_in": synthetic.plans, "stand_in_reward": reasoning_gym_reward}
_TAU = "trl_teamtr.tasks.tau2.environment"

BENCHMARKS: dict[str, Benchmark] = {
    "aime24": _of_module(
        aime24, stand_in=partial(synthetic.mathematics, task="gsm_symbolic"), read_answer=aime24.read_answer
    ),
    "aime25": _of_module(
        aime25, stand_in=partial(synthetic.mathematics, task="gsm_symbolic"), read_answer=aime25.read_answer
    ),
    "math500": _of_module(
        math500, stand_in=partial(synthetic.mathematics, task="polynomial_equations"), read_answer=math500.read_answer
    ),
    "zebralogic": _of_module(zebralogic, stand_in=synthetic.zebras, read_answer=zebralogic.read_answer),
    "autologi": _of_module(autologi, stand_in=synthetic.knights_and_knaves, read_answer=autologi.read_answer),
    "arbench_gn": _of_module(
        arbench_gn, stand_in=synthetic.numbers, environment="trl_teamtr.tasks.arbench_gn.NumberGame", acted=True
    ),
    "arbench_sp": _of_module(arbench_sp, judged=True, graded=True),
    "arbench_dc": _of_module(arbench_dc, judged=True),
    "planbench": _of_module(planbench, read_answer=planbench.read_answer, **_HANOI),
    "tau_airline": Benchmark(partial(make_tau2, "airline"), tau2_reward, environment=f"{_TAU}.airline"),
    "tau_retail": Benchmark(partial(make_tau2, "retail"), tau2_reward, environment=f"{_TAU}.retail"),
}


def find_benchmark(name: str) -> Benchmark | None:
    """The benchmark of a `dataset_name`, which may name its stand-in; `None` if it is none."""
    return BENCHMARKS.get(name.partition(":")[0])


def is_stand_in(name: str) -> bool:
    """Whether `name` is that of a benchmark's stand-in."""
    kind, _, rest = name.partition(":")
    return kind in BENCHMARKS and rest == STAND_IN


def load_benchmark(
    name: str,
    split: str,
    size: int,
    seed: int,
    dataset_path: str | None = None,
    revision: str | None = None,
    **settings: Any,
) -> Dataset:
    """
    The rows of a benchmark or of its stand-in.

    Args:
        name (`str`): `zebralogic`, `zebralogic:synthetic` and so on.
        split (`str`): Of τ²-bench's domains. The other benchmarks have one split, which is taken.
        size, seed (`int`): Of a stand-in.
        dataset_path, revision (`str`, *optional*): As for [`~trl_teamtr.tasks.published.Source.read`].
        settings: Of the benchmark or of the stand-in.

    Raises:
        `ValueError`: If there is no such stand-in, or an argument is of no use to it.
    """
    kind, colon, rest = name.partition(":")
    benchmark = BENCHMARKS[kind]
    given = {"dataset_path": dataset_path, "revision": revision}
    useless = [argument for argument, value in given.items() if value is not None]
    if colon:
        if rest != STAND_IN or benchmark.stand_in is None:
            names = [f"{each}:{STAND_IN}" for each, other in BENCHMARKS.items() if other.stand_in]
            raise ValueError(f"There is no {name!r}. Use {kind!r}, or one of the stand-ins: {', '.join(names)}.")
        if useless:
            raise ValueError(f"{name!r} is generated: leave out {' and '.join(useless)}.")
        return benchmark.stand_in(size, seed, **settings)
    if benchmark.source is None:
        if useless:
            raise ValueError(f"{name!r} comes with the package inspect-evals: leave out {' and '.join(useless)}.")
        return benchmark.make_dataset(split=split, **settings)
    return benchmark.make_dataset(**given, **settings)


def reward_of(name: str) -> Callable[..., Any]:
    """The scorer of a benchmark or of its stand-in."""
    benchmark = BENCHMARKS[name.partition(":")[0]]
    return (is_stand_in(name) and benchmark.stand_in_reward) or benchmark.reward


def answer_reader(reward_funcs: Sequence) -> Callable[[str, dict[str, Any]], str] | None:
    """How the benchmark whose scorer is among `reward_funcs` reads an answer; `None` if there is none, or it does not say."""
    found = [benchmark.read_answer for benchmark in BENCHMARKS.values() if benchmark.reward in reward_funcs]
    return found[0] if found else None
