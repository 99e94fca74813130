"""
What a team of one costs beside TRL's own `GRPOTrainer`: wall time per update on the same rollout sizes.

    python benchmarks/team_of_one.py            # about five minutes on two cores
    python benchmarks/team_of_one.py --quick    # under a minute
    python benchmarks/team_of_one.py --smoke    # seconds: says only that it runs
    python benchmarks/team_of_one.py --against path/to/another/checkout    # both versions in turns, ten minutes

One process holds both trainers, and one with the trust region, each in the midst of one run. They take turns, one
generation batch at a time, in an order that is drawn in each round; the ratio is the median over rounds. Every message
has the full length (the model never ends a turn), so that all do the same work. `num_iterations=2` everywhere: for TRL a
batch serves two optimizer steps, for a team of one it is one update of two inner steps. A round of its own comes first,
which allocates and compiles, and measures the floor of the KL, as a run does every `floor_every` stages.

Prints where the time goes ("scoring" is a forward pass without gradient: of TRL, for the old log-probabilities; of the
team with a radius, to measure the KL), and one JSON object last: `ratio` (radius None), `ratio_with_radius` (k3, one forward pass
more), and the sizes. With `--against`, two processes, one of each checkout, take turns round by round, and the JSON
object has the ratios of both.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time


os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
os.environ["CI"] = "1"  # no telemetry

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from machine import describe_machine  # noqa: E402
from size import add_size  # noqa: E402
from transformers import Qwen3Config, Qwen3ForCausalLM, TrainerCallback  # noqa: E402
from transformers.trainer_callback import PrinterCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

from trl_teamtr import TeamTRConfig, TeamTRTrainer  # noqa: E402
from trl_teamtr.tasks.link import make_tokenizer  # noqa: E402


SIZES = {
    "smoke": {"hidden": 16, "rollouts": 16, "length": 4, "rounds": 1},
    "quick": {"hidden": 128, "rollouts": 32, "length": 16, "rounds": 12},
    "full": {"hidden": 256, "rollouts": 64, "length": 48, "rounds": 30},
    "gpu": {"hidden": 1024, "layers": 16, "rollouts": 64, "length": 128, "rounds": 5},  # benchmarks/gpu/check.py
}
LAYERS = 4


def reward(completions, **kwargs):
    return [float(completion[0]["content"].count("A")) for completion in completions]


class Turns(TrainerCallback):
    """
    Lets a trainer, which runs in a thread of its own, train for one generation batch at a time, and takes the time.

    Args:
        steps_per_batch (`int`): Steps that the trainer makes on a generation batch.
    """

    def __init__(self, steps_per_batch: int):
        self._steps_per_batch, self._start, self._ending = steps_per_batch, 0.0, False
        self._may_go, self._has_gone, self._thread = threading.Semaphore(0), threading.Semaphore(0), None
        self._seconds, self._error = 0.0, None

    def start(self, trainer):
        """Let it begin its run, up to its first batch."""
        self._thread = threading.Thread(target=self._train, args=[trainer])
        self._thread.start()
        self._wait()

    def take(self) -> float:
        """Let it train on one batch. Returns the seconds."""
        self._may_go.release()
        self._wait()
        return self._seconds

    def end(self):
        """Let it end its run."""
        self._ending = True
        self._may_go.release()
        self._thread.join()

    def _train(self, trainer):
        try:
            trainer.train()
        except BaseException as error:  # raised where the benchmark waits
            self._error = error
        self._has_gone.release()

    def _wait(self):
        self._has_gone.acquire()
        if self._error is not None:
            raise self._error

    def _pause(self, control):
        self._has_gone.release()
        self._may_go.acquire()
        control.should_training_stop |= self._ending
        self._start = time.perf_counter()

    def on_train_begin(self, args, state, control, **kwargs):
        self._pause(control)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self._steps_per_batch == 0:
            self._seconds = time.perf_counter() - self._start
            self._pause(control)


def make_model(tokenizer, hidden: int, layers: int) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    # A policy that never ends a turn: TRL's rule that suppresses tokens would change the law that is scored
    head = torch.nn.Linear(hidden, len(tokenizer))
    head.weight = model.lm_head.weight
    with torch.no_grad():
        head.bias.zero_()
        head.bias[[tokenizer.eos_token_id, tokenizer.pad_token_id]] = -1e4
    model.lm_head = head
    return model


def make_trainer(kind: str, size: dict, folder: str):
    tokenizer, on_gpu = make_tokenizer(), size is SIZES["gpu"] and torch.cuda.is_available()
    common = {
        "output_dir": os.path.join(folder, kind),
        "use_cpu": not on_gpu,
        "bf16": on_gpu,
        "gradient_checkpointing": False,
        "disable_dropout": True,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "lr_scheduler_type": "constant",
        "learning_rate": 1e-6,  # so that no update is stopped early: all make the same passes
        "num_generations": 8,
        "num_iterations": 2,
        "per_device_train_batch_size": size["rollouts"] // 2,
        "gradient_accumulation_steps": 2,
        "max_completion_length": size["length"],
    }
    prompts = [
        [{"role": "user", "content": "".join(random.Random(i).choices("012345ABCDEF", k=32))}] for i in range(512)
    ]
    dataset = Dataset.from_dict({"prompt": prompts})
    turns = Turns(2 if kind == "grpo" else 1)
    arguments = {"train_dataset": dataset, "processing_class": tokenizer, "callbacks": [turns]}
    model = make_model(tokenizer, size["hidden"], size.get("layers", LAYERS))
    if kind == "grpo":
        trainer = GRPOTrainer(model, reward, GRPOConfig(max_steps=10**6, **common), **arguments)
    else:
        radius = {"team": None, "team_with_radius": 0.01}[kind]
        args = TeamTRConfig(
            max_steps=10**6, trust_region_radius=radius, kl_coef=0.0 if radius is None else 0.1, **common
        )
        trainer = TeamTRTrainer(model, reward, args, **arguments)
    trainer.remove_callback(PrinterCallback)
    return trainer, turns


KINDS = ("grpo", "team", "team_with_radius")
PARTS = ("generation", "scoring", "forward with gradient", "backward")


def time_parts(trainer) -> dict[str, float]:
    """Seconds that `trainer` spends in each of `PARTS`, counted up while it trains."""
    seconds = dict.fromkeys(PARTS, 0.0)

    def watch(owner, name, part):
        method = getattr(owner, name)

        def call(*args, **kwargs):
            start, before = time.perf_counter(), sum(seconds.values())
            result = method(*args, **kwargs)
            # A part within a part counts once
            seconds[part()] += time.perf_counter() - start - (sum(seconds.values()) - before)
            return result

        setattr(owner, name, call)

    def scoring() -> str:
        return "forward with gradient" if torch.is_grad_enabled() else "scoring"

    if isinstance(trainer, TeamTRTrainer):
        watch(trainer.speaker.backend, "generate", lambda: "generation")
        watch(trainer.speaker.policy, "token_logps", lambda: "scoring")
    else:
        watch(trainer, "_generate_single_turn", lambda: "generation")
    watch(trainer, "_get_per_token_logps_and_entropies", scoring)
    watch(trainer.accelerator, "backward", lambda: "backward")
    return seconds


class Rounds:
    """The three trainers, which take one generation batch each in a round."""

    def __init__(self, size: dict, folder: str):
        made = {kind: make_trainer(kind, size, folder) for kind in KINDS}
        self.trainers = {kind: trainer for kind, (trainer, _) in made.items()}
        self._turns = {kind: turns for kind, (_, turns) in made.items()}

    @contextlib.contextmanager
    def begun(self):
        """Context of the three runs, after the first round."""
        for kind in KINDS:
            self._turns[kind].start(self.trainers[kind])
        self.run()
        yield
        for kind in KINDS:
            self._turns[kind].end()

    def run(self) -> dict[str, float]:
        """Seconds of each."""
        return {kind: self._turns[kind].take() for kind in random.sample(KINDS, len(KINDS))}


def ratios(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians over rounds."""
    names = {"team": "ratio", "team_with_radius": "ratio_with_radius"}
    return {names[kind]: round(statistics.median(r[kind] / r["grpo"] for r in rounds), 3) for kind in names}


def main(options):
    if options.work:
        return work(options.size)
    if options.against is not None:
        return compare(options.against, options.size)
    measure(options.size)


def measure(name: str):
    size = SIZES[name]
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Rounds(size, folder)
        parts = {kind: time_parts(trainer) for kind, trainer in benchmark.trainers.items()}
        with benchmark.begun():
            for seconds in parts.values():
                seconds.update(dict.fromkeys(PARTS, 0.0))
            rounds = [benchmark.run() for _ in range(size["rounds"])]
    print(f"{'ms per generation batch':<24}" + "".join(f"{kind:>18}" for kind in KINDS))
    means = {kind: statistics.mean(seconds[kind] for seconds in rounds) for kind in KINDS}
    for part in PARTS:
        print(f"  {part:<22}" + "".join(f"{1e3 * parts[kind][part] / size['rounds']:18.1f}" for kind in KINDS))
    rest = [means[kind] - sum(parts[kind].values()) / size["rounds"] for kind in KINDS]
    print(f"  {'everything else':<22}" + "".join(f"{1e3 * value:18.1f}" for value in rest))
    print(f"  {'all':<22}" + "".join(f"{1e3 * mean:18.1f}" for mean in means.values()))
    report = benchmark.trainers["team_with_radius"].active.report
    print(f"The last update with a radius made {report.inner_steps} inner steps and {report.backtracks} halvings.")
    print(describe_machine())
    print(json.dumps(ratios(rounds) | {"size": name} | size))


# Two checkouts


class Worker:
    """A process that runs rounds of the package in `checkout`, when it is told to."""

    def __init__(self, checkout: str, size: str):
        command = [sys.executable, "-W", "ignore", __file__, "--work", *([] if size == "full" else [f"--{size}"])]
        environment = os.environ | {"PYTHONPATH": checkout}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout
        )

    def run(self) -> dict[str, float]:
        self.process.stdin.write("round\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        while line and not line.startswith("{"):  # what libraries print
            line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"A worker ended with status {self.process.wait()}.")
        return json.loads(line)


def work(size: str):
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Rounds(SIZES[size], folder)
        with benchmark.begun():
            for _ in sys.stdin:
                print(json.dumps(benchmark.run()), flush=True)


def compare(checkout: str, name: str):
    size, here = SIZES[name], os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    workers = {where: Worker(path, name) for where, path in (("here", here), ("there", os.path.abspath(checkout)))}
    rounds: dict[str, list] = {where: [] for where in workers}
    for number in range(size["rounds"]):
        for where in sorted(workers, reverse=number % 2 == 1):
            rounds[where].append(workers[where].run())
    for worker in workers.values():
        worker.process.stdin.close()
        worker.process.wait()
    print(describe_machine())
    print(json.dumps({where: ratios(found) for where, found in rounds.items()} | {"size": name} | size))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size(parser)
    parser.add_argument(
        "--against", metavar="CHECKOUT", help="another checkout of this repository, to take turns with"
    )
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
