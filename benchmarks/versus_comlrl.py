"""
Our trainer beside CoMLRL's `MAGRPOTrainer` (version 1.4.3 from PyPI): updates per second on the same models and prompts.

    python3 -m venv .venv-comlrl
    .venv-comlrl/bin/pip install torch==2.13.0 comlrl==1.4.3
    python -W ignore benchmarks/versus_comlrl.py --comlrl_python .venv-comlrl/bin/python          # about five minutes
    python -W ignore benchmarks/versus_comlrl.py --comlrl_python .venv-comlrl/bin/python --quick  # about two
    python -W ignore benchmarks/versus_comlrl.py --smoke    # our side alone, in this process, seconds: says only that it runs

CoMLRL gets an environment, and hence a process, of its own; this script starts one worker process there and one here. They
take turns, in an order that is drawn anew each round: one waits while the other works. A turn is one update of each of two
agents, and an *update* is one step of AdamW on the messages that one agent wrote to `prompts` prompts, `generations` each.
Ratios are medians over rounds; the first round is not counted. What each side writes and trains on is counted from its
tensors, and the run fails where the counts should agree and do not. On a busy machine set OMP_NUM_THREADS=1: threads that
wait for each other slow down either side at random.

The same on both sides: architecture, initial weights, float32, attention, prompts, sampling, messages of exactly `length`
tokens (the tiny model never says a special one; with a real one they are suppressed in generation), rewards, learning rate, weight decay, one optimizer step per agent and batch.

CoMLRL, at its best for this work: one turn, `joint_mode="aligned"` ("cross" calls the reward more often), buffer and
training batch hold all prompts of an update, no progress bar, no reference model, `parallel_training="none"` ("mp" wants a
device per agent). It has no larger batches than these: it generates for one prompt at a time, all `generations` of it,
and makes a forward pass for each single message, with a loop in Python over its tokens. So the ratio depends on the sizes,
and a run measures three, on the tiny model of LINK: `quickstart`, the batch and message length of examples/quickstart.yaml
(`ratio` is this one's); `longer` prompts and messages, fewer of them; and `one_prompt` per update, where CoMLRL generates in
one batch as we do.

To our disadvantage: our agents speak one after another, and the second reads what the first one wrote, so that its contexts
are longer ("read", "positions" in the table; CoMLRL's agents do not read each other); ours clips gradients; CoMLRL leaves
the last token of each message out of the loss. To our advantage: what `train` prepares before the first update is not
counted for ours (CoMLRL prepares next to nothing). Our cases:

- `full` (the default, and the `ratio`) has the team write anew before each update: twice as many messages as CoMLRL;
- `stale` writes once for both updates, as CoMLRL does: the closest to the same work;
- `full_radius` is `full` with a trust region of 0.01: one forward pass more (k3). With a real model it is two ("exact"):
  k3 is of the policy whose special tokens are not suppressed, and refused.

`--model DIR` takes a real model, all of whose weights are trained, in one size. Prints the work and where the time goes, per
update, and one JSON object last.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version


os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
os.environ["CI"] = "1"  # no telemetry

import torch  # noqa: E402
from comlrl_table import AGENTS, COUNTS, PARTS, RATIOS, print_table, summarise  # noqa: E402
from datasets import Dataset  # noqa: E402
from size import add_size  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback  # noqa: E402
from transformers.trainer_callback import PrinterCallback  # noqa: E402


SIZES = {
    "smoke": {"prompts": 2, "generations": 2, "prompt_length": 1, "length": 4},
    "quickstart": {"prompts": 48, "generations": 8, "prompt_length": 1, "length": 4},
    "longer": {"prompts": 8, "generations": 8, "prompt_length": 32, "length": 48},
    "one_prompt": {"prompts": 1, "generations": 8, "prompt_length": 32, "length": 48},
    "model": {"prompts": 2, "generations": 4, "prompt_length": 8, "length": 16},
}
ROUNDS = {"smoke": 1, "quick": 3, "full": 10, "model": 2}
OURS = {
    "full": {"resampling": "full", "trust_region_radius": None, "kl_coef": 0.0},
    "stale": {"resampling": "stale", "trust_region_radius": None, "kl_coef": 0.0},
    "full_radius": {"resampling": "full", "trust_region_radius": 0.01, "kl_estimator": "k3"},
}
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
LEARNING_RATE = 1e-6  # so small that no update leaves the radius: the work is the same each time


class Meter:
    """Counts what a trainer does, and where its time goes, by looking on at its methods."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.seconds, self.counts = dict.fromkeys(PARTS, 0.0), dict.fromkeys(COUNTS, 0)

    def watch(self, owner, name: str, part: str, count=None):
        method = getattr(owner, name)

        def call(*args, **kwargs):
            start, before = time.perf_counter(), sum(self.seconds.values())
            result = method(*args, **kwargs)
            # A part within a part counts once
            self.seconds[part] += time.perf_counter() - start - (sum(self.seconds.values()) - before)
            for key, value in (count(*args, result=result, **kwargs) if count else {}).items():
                self.counts[key] += value
            return result

        setattr(owner, name, call)

    def watch_model(self, model, agent: int, special_ids: list[int]):
        special_ids = torch.tensor(special_ids)

        def count_generated(result, input_ids, attention_mask, **kwargs):
            if "output_logits" in kwargs:  # as our check at the start of training asks for
                return {}
            messages = getattr(result, "sequences", result)[:, input_ids.size(1) :]
            read = int(attention_mask.sum()) * len(messages) // len(input_ids)
            written = {"written": len(messages), "tokens_written": int((~torch.isin(messages, special_ids)).sum())}
            return written | {"read": read, "read_by_first": read if agent == 0 else 0}

        def count_positions(module, args, kwargs):
            if torch.is_grad_enabled():
                self.counts["positions"] += kwargs["input_ids"].numel()

        self.watch(model, "generate", "generation", count_generated)
        model.register_forward_pre_hook(count_positions, with_kwargs=True)


def reward_of(messages) -> float:
    return float(sum(message.count("A") for message in messages))


def count_calls(key: str):
    return lambda *args, **kwargs: {key: 1}


def count_trained_by_ours(model, inputs, result) -> dict[str, int]:
    mask = inputs["completion_mask"] * inputs["tool_mask"]
    return {"trained": len(mask), "tokens_trained": int(mask.sum())}


def count_trained_by_theirs(agent, data, returns, result) -> dict[str, int]:
    (messages,) = data["completion_input_ids"]
    return {"trained": len(messages), "tokens_trained": sum(len(message) for message in messages)}


def start_ours(setup: dict, tokenizer, special_ids: list[int], meter: Meter):
    """The team, under each of the cases; and for each case what takes a turn and returns its seconds."""
    models, turns = [AutoModelForCausalLM.from_pretrained(setup["model"]) for _ in AGENTS], {}
    for case in setup["cases"]:
        trainer, turn = make_ours(case, setup, tokenizer, special_ids, models)
        trainer.remove_callback(PrinterCallback)
        for member in trainer.members:
            meter.watch(member.speaker.backend, "generate", "generation")
            meter.watch(member, "_compute_loss", "forward with gradient", count_trained_by_ours)
            meter.watch(member.accelerator, "backward", "backward")
            meter.watch(member, "_optimizer_step", "optimizer", count_calls("optimizer_steps"))
            meter.watch(member, "measure_kl", "measuring the KL", count_calls("kl_passes"))
        turns[case] = lambda trainer=trainer, turn=turn: turn.take(trainer)
    return models, turns


def make_ours(case: str, setup: dict, tokenizer, special_ids: list[int], models: list):
    from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer

    def reward(completions, transcripts, **kwargs):
        return [reward_of([message["content"] for message in messages]) for messages in transcripts]

    quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}
    plain = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "learning_rate": LEARNING_RATE}
    own = OURS[case] | ({"kl_estimator": "exact"} if setup["suppressed"] else {})
    optimizer = {"optim": "adamw_torch", "weight_decay": 0.01, "lr_scheduler_type": "constant"}  # as CoMLRL's
    args = TeamTRConfig(
        output_dir=os.path.join(setup["folder"], case),
        num_iterations=1,
        max_steps=10**6,
        shuffle_dataset=False,
        per_device_train_batch_size=setup["prompts"] * setup["generations"],
        num_generations=setup["generations"],
        max_completion_length=setup["length"],
        generation_kwargs={"suppress_tokens": special_ids} if setup["suppressed"] else None,
        **plain | quiet | optimizer | SAMPLING | own,
    )
    turn = Turn()
    agents = [Agent(name, model, processing_class=tokenizer) for name, model in zip(AGENTS, models, strict=True)]
    dataset = Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in setup["texts"]])
    return TeamTRTrainer(agents, reward, args, dataset, processing_class=tokenizer, callbacks=[turn]), turn


class Turn(TrainerCallback):
    """Ends the training after one update of each agent. What `train` prepares before them is not counted."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == len(AGENTS):
            self.seconds = time.perf_counter() - self.start
            control.should_training_stop = True

    def take(self, trainer) -> float:
        trainer.train()
        return self.seconds


def start_theirs(setup: dict, tokenizer, special_ids: list[int], meter: Meter):
    """CoMLRL's trainer, and what takes a turn and returns its seconds."""
    from comlrl.trainers.reinforce import MAGRPOConfig, MAGRPOTrainer

    def formatter(item):
        turns = [{"role": "user", "content": item["prompt"]}]
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def reward(first, second):
        return [reward_of(messages) for messages in zip(first, second, strict=True)]

    args = MAGRPOConfig(
        **{"num_train_epochs": 1, "num_turns": 1, "joint_mode": "aligned", "eval_interval": 0, "agent_devices": "cpu"},
        num_agents=len(AGENTS),
        agent_learning_rate=LEARNING_RATE,
        **{"rollout_buffer_size": setup["prompts"], "train_batch_size": setup["prompts"]},
        **{"num_generations": setup["generations"], "max_new_tokens": setup["length"]},
        **SAMPLING,
    )
    dataset = Dataset.from_list([{"prompt": text} for text in setup["texts"]])
    task = {"train_dataset": dataset, "reward_func": reward, "formatters": formatter, "tokenizer": tokenizer}
    trainer = MAGRPOTrainer(agents=[setup["model"] for _ in AGENTS], num_agents=len(AGENTS), args=args, **task)
    trainer.verbose = False  # no progress bar
    for optimizer in trainer.optimizers:
        meter.watch(optimizer, "step", "optimizer", count_calls("optimizer_steps"))
    meter.watch(trainer, "_generate_completions", "generation")
    meter.watch(trainer, "_compute_loss_with_gradients", "forward with gradient", count_trained_by_theirs)
    meter.watch(trainer, "_update_from_samples", "backward")  # what is left of it

    def take_turn() -> float:
        start = time.perf_counter()
        # What is given to `train` goes to `generate`
        trainer.train(**({"suppress_tokens": special_ids} if setup["suppressed"] else {}))
        return time.perf_counter() - start

    return trainer.agents, {"comlrl": take_turn}


def work(kind: str, setup: dict):
    """A worker: says what it is, then takes a turn for each line that it reads."""
    channel, sys.stdout = sys.stdout, sys.stderr  # whatever libraries print must not look like an answer
    about, take = start(kind, setup)
    print(json.dumps(about), file=channel, flush=True)
    for line in sys.stdin:
        print(json.dumps(take(line.strip())), file=channel, flush=True)


def start(kind: str, setup: dict):
    """What a worker says of itself, and what takes a turn of a case and returns the answer."""
    tokenizer = AutoTokenizer.from_pretrained(setup["tokenizer"])
    special_ids = sorted({*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder})
    meter = Meter()
    models, turns = {"ours": start_ours, "comlrl": start_theirs}[kind](setup, tokenizer, special_ids, meter)
    for i, model in enumerate(models):
        meter.watch_model(model, i, special_ids)
    packages = ("torch", "transformers", "datasets", *(("trl", "trl_teamtr") if kind == "ours" else ("comlrl",)))
    about = {
        "versions": {"Python": platform.python_version()} | {package: version(package) for package in packages},
        "weights": [sum(p.detach().double().sum().item() for p in model.parameters()) for model in models],
        "parameters": [sum(p.numel() for p in model.parameters()) for model in models],
        "dtypes": sorted({str(p.dtype) for model in models for p in model.parameters()}),
        "attention": [model.config._attn_implementation for model in models],
        "threads": torch.get_num_threads(),
    }

    def take(case: str) -> dict:
        meter.reset()
        seconds = turns[case]()
        return {"seconds": seconds, "parts": meter.seconds} | meter.counts

    return about, take


def ask(worker: subprocess.Popen, case: str | None = None) -> dict:
    """A worker's next answer; after a turn of `case`, if it is given."""
    if case is not None:
        print(case, file=worker.stdin, flush=True)
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError(f"A worker stopped with exit code {worker.wait()}; see its messages above.")
    return json.loads(line)


def prepare(size: dict, model: str | None, folder: str) -> dict:
    """Puts the tokenizer, and the tiny model, where both workers load it."""
    prompts, length = size["prompts"], size["prompt_length"]
    suppressed = model is not None
    texts = ["".join(random.Random(i).choices("012345ABCDEF", k=length)) for i in range(prompts)]
    if model is None:
        from resampling_cost import endless_model

        from trl_teamtr.tasks.link import make_tokenizer

        tokenizer, model = make_tokenizer(), os.path.join(folder, "model")
        endless_model(tokenizer, seed=0).save_pretrained(model)
    else:
        tokenizer = AutoTokenizer.from_pretrained(model)
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": texts[0]}], tokenize=False)
        # CoMLRL takes a prompt to end at its first padding token, which some models have at the end of each turn
        tokenizer.pad_token = next(token for token in tokenizer.all_special_tokens if token not in prompt)
    tokenizer.save_pretrained(os.path.join(folder, "tokenizer"))
    return size | {
        "suppressed": suppressed,
        "model": model,
        "tokenizer": os.path.join(folder, "tokenizer"),
        "folder": folder,
        "texts": texts,
    }


def check_counts(case: str, counts: dict, theirs: dict, size: dict):
    """Raise unless the work is what the docstring says."""
    trained = len(AGENTS) * size["prompts"] * size["generations"]
    written = trained if case in ("comlrl", "stale") else len(AGENTS) * trained
    expected = {"written": written, "tokens_written": written * size["length"], "trained": trained}
    expected |= {"tokens_trained": trained * size["length"], "optimizer_steps": len(AGENTS)}
    expected |= {"read_by_first": theirs["read_by_first"] * written // trained}
    expected |= {"kl_passes": len(AGENTS) if case == "full_radius" else 0}  # more, had an update left the radius
    found = {key: counts[key] for key in expected}
    if found != expected:
        raise RuntimeError(f"{case} did other work than it should: {found} instead of {expected}.")


def measure(options: argparse.Namespace, size: dict, rounds: int) -> tuple[dict[str, list[dict]], dict[str, dict]]:
    """The answers of all cases, round by round, and what the workers say of themselves."""
    cases = ["comlrl", *options.cases]
    answers, workers = {case: [] for case in cases}, {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        with contextlib.redirect_stdout(sys.stderr):  # what libraries announce is no part of the output
            setup = json.dumps(prepare(size, options.model, folder) | {"cases": options.cases})
        for name, python in {"ours": sys.executable, "comlrl": options.comlrl_python}.items():
            command = [python, "-W", "ignore", os.path.abspath(__file__), "--worker", name, "--setup", setup]
            worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            workers[name] = stack.enter_context(worker)  # on leaving, its input is closed, at which it ends
        about = {name: ask(worker) for name, worker in workers.items()}
        for key in ("weights", "parameters", "dtypes", "attention", "threads"):
            if about["ours"][key] != about["comlrl"][key]:
                raise RuntimeError(f"{key}: {about['ours'][key]} of ours, {about['comlrl'][key]} of CoMLRL's.")
        for round_ in range(rounds + 1):
            for case in random.sample(cases, len(cases)):
                answer = ask(workers["comlrl" if case == "comlrl" else "ours"], case)
                if round_ > 0:  # first calls allocate and compile
                    answers[case].append(answer)
    for case in cases:
        for answer, theirs in zip(answers[case], answers["comlrl"], strict=True):
            check_counts(case, answer, theirs, size)
    return answers, about


def measure_ours(options: argparse.Namespace, size: dict) -> dict[str, list[dict]]:
    """One turn of each of our cases in this process, beside `stale` in place of CoMLRL."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        _, take = start("ours", prepare(size, options.model, folder) | {"cases": list(OURS)})
        answers = {case: [take(case)] for case in OURS}
    for case in OURS:
        check_counts(case, answers[case][0], answers["stale"][0], size)
    return answers


def main(options: argparse.Namespace):
    if options.worker:
        return work(options.worker, json.loads(options.setup))
    if options.size == "smoke":
        answers = measure_ours(options, SIZES["smoke"])
        print_table(answers)
        return print(json.dumps({"updates": len(AGENTS) * len(answers), "size": "smoke"}))
    kind = "model" if options.model else options.size
    names = ["model"] if options.model else [name for name in SIZES if name not in ("smoke", "model")]
    random.seed(0)
    results = {}
    for name in names:
        print(f"{name}: {SIZES[name]}")
        answers, about = measure(options, SIZES[name], ROUNDS[kind])
        print_table(answers)
        results[name] = summarise(answers) | SIZES[name]
        print("\n".join(f"{key}: {value}" for key, value in results[name].items() if key in RATIOS.values()), "\n")
    for name, facts in about.items():
        print(f"{name}: " + ", ".join(f"{package} {number}" for package, number in facts["versions"].items()))
    print(f"{os.cpu_count()} cores, OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}")
    ratios = {key: value for key, value in results[names[0]].items() if key in RATIOS.values()}
    model = os.path.basename(os.path.normpath(options.model)) if options.model else "tiny"
    facts = {"model": model, "parameters": about["ours"]["parameters"][0], "rounds": ROUNDS[kind]}
    print(json.dumps(ratios | {"size": options.size} | facts | {"sizes": results}))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comlrl_python", default=".venv-comlrl/bin/python", help="interpreter that has CoMLRL")
    add_size(parser)
    parser.add_argument("--model", help="directory of a model with a chat template, instead of the tiny one")
    parser.add_argument("--cases", nargs="+", choices=list(OURS), default=list(OURS), help="which of ours to run")
    parser.add_argument("--worker", choices=["ours", "comlrl"], help=argparse.SUPPRESS)
    parser.add_argument("--setup", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
