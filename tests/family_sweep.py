"""
What a team of each architecture does, from training to loading: every row is all right, or refused before training.

    python tests/family_sweep.py                      # all of tests/families.py: some minutes on one core
    python tests/family_sweep.py --only llama gpt2

Two agents of tiny random weights, two rounds, four updates with `resampling="speculative"` (or `"full"`, where that is
refused: "mode"). Then, in the columns of the table:

- trained: the weights of both agents have changed;
- resumed: a second trainer of other weights, which goes on from the checkpoint of the second update, ends with the same
  weights, moments and logs, to the bit;
- loaded: the saved team, through `Team.from_pretrained` and `from_pretrained` of transformers, has the same weights, to the
  bit;
- kept: drafts of a team that has not changed are verified, and all kept;
- generated: the largest difference, in nats, between the log-probabilities of sampled tokens as `generate` had them, with
  its cache and left padding, and as the trainer scores them;
- padded: the same, of a short row scored alone and beside a long one.

Differences up to 1e-4 count as rounding of float32. Prints one JSON object last, and ends with an error if something is
wrong that was not refused. It is in tests/, since it is about the tests' models.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path


HERE = Path(__file__).resolve().parent
os.environ |= {"HF_HUB_OFFLINE": "1", "CI": "1"}
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402
from families import FAMILIES, make_family  # noqa: E402
from resuming import StopAfter, final_state  # noqa: E402
from tiny import PROMPTS, changed, make_tokenizer, make_trainer, weights  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from transformers.trainer_callback import PrinterCallback  # noqa: E402

from trl_teamtr import Agent, Team  # noqa: E402
from trl_teamtr.conversation.view import View  # noqa: E402
from trl_teamtr.rollouts.drafts import Drafts  # noqa: E402
from trl_teamtr.trust_region.snapshot import Snapshot  # noqa: E402


NAMES = ("x", "y")
ROUNDING = 1e-4  # nats
FIELDS = {
    "num_rounds": 2,
    "num_stages": 2,
    "num_iterations": 2,
    "max_completion_length": 3,
    "save_strategy": "steps",
    "save_steps": 1,
    "learning_rate": 1e-3,
}
CHECKS = ("trained", "resumed", "loaded", "kept")
DIFFERENCES = ("generated", "padded")


@dataclass
class Row:
    """
    What was found of one architecture.

    Args:
        kind (`str`): Its name.
        mode (`str`): The resampling mode of its run.
        found (`dict`): What each column says.
        refused (`str`): Why it cannot be trained, if that was said before training.
        failed (`str`): What went wrong after that.
    """

    kind: str
    mode: str = "speculative"
    found: dict[str, bool | float] = field(default_factory=dict)
    refused: str = ""
    failed: str = ""

    @property
    def wrong(self) -> list[str]:
        """Columns that say that something is wrong, and was not refused."""
        checks = [name for name in CHECKS if self.found.get(name) is False]
        differences = [name for name in DIFFERENCES if not self.found.get(name, 0.0) <= ROUNDING]
        return checks + differences + (["failed"] if self.failed else [])

    def line(self) -> str:
        if self.refused:
            return f"{self.kind:<18}refused: {self.refused}"
        cells = [f"{('yes' if self.found[name] else 'NO') if name in self.found else '-':<9}" for name in CHECKS]
        cells += [f"{self.found[name]:<11.1e}" if name in self.found else f"{'-':<11}" for name in DIFFERENCES]
        return f"{self.kind:<18}{self.mode:<13}" + "".join(cells) + (self.failed or ", ".join(self.wrong) or "right")


def make_run(kind: str, seed: int, folder: Path, **fields):
    tokenizer = make_tokenizer(4)
    ids = {"vocab_size": 4, "eos_token_id": 1, "pad_token_id": 1}
    team = [
        Agent(name, make_family(kind, seed + i, **ids), processing_class=tokenizer) for i, name in enumerate(NAMES)
    ]
    trainer = make_trainer(folder, team, **FIELDS | fields)
    trainer.remove_callback(PrinterCallback)
    return trainer


def sweep(kind: str, folder: Path) -> Row:
    """All columns of one architecture."""
    row = Row(kind)
    try:
        trainer = make_run(kind, 0, folder / "whole", resampling="speculative")
    except (ValueError, NotImplementedError) as error:
        if "resampling='speculative'" not in str(error):
            row.refused = f"{type(error).__name__}: {error}"
            return row
        row.mode = "full"
        trainer = make_run(kind, 0, folder / "whole", resampling="full")
    try:
        fill(row, trainer, folder)
    except Exception as error:  # what a table is for: the others are looked at too
        row.failed = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return row


def fill(row: Row, trainer, folder: Path):
    before = [weights(member.model) for member in trainer.members]
    try:
        trainer.train()
    except ValueError as error:
        if trainer.state.global_step > 0:
            raise
        row.refused = f"{type(error).__name__}: {error}"
        return
    row.found["trained"] = all(changed(old, member.model) for old, member in zip(before, trainer.members, strict=True))
    fields = {"resampling": row.mode}
    make_run(row.kind, 0, folder / "stopped", callbacks=[StopAfter(2)], **fields).train()
    resumed = make_run(row.kind, 5, folder / "stopped", **fields)
    resumed.train(resume_from_checkpoint=True)
    row.found["resumed"] = are_equal(final_state(trainer), final_state(resumed))
    row.found["loaded"] = is_loaded_as_it_is(trainer, folder / "saved")
    if row.mode == "speculative":
        row.found["kept"] = keeps_all_drafts(trainer)
    row.found["generated"] = max(generation_difference(member) for member in trainer.members)
    row.found["padded"] = max(padding_difference(member) for member in trainer.members)


def are_equal(one, other) -> bool:
    """Of nested lists, dicts and tensors."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(are_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(are_equal, one, other))
    return one == other


def is_loaded_as_it_is(trainer, folder: Path) -> bool:
    trainer.save_model(str(folder))
    team = Team.from_pretrained(str(folder))
    models = [speaker.policy.model for speaker in team.speakers]
    models += [AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32) for name in NAMES]
    own = [member.model.state_dict() for member in trainer.members]
    return all(are_equal(mine, model.state_dict()) for mine, model in zip(own * 2, models, strict=True))


def keeps_all_drafts(trainer) -> bool:
    """Whether each agent's messages are verified, and kept, if its policy is the one before."""
    rollouts = trainer.team.collect([{"prompt": prompt} for prompt in PROMPTS])
    for member in trainer.members:
        again = trainer.team.resample(Drafts(rollouts, member.name, Snapshot(member.engine), speculative=True))
        said = [[message.ids for message in each.messages] for each in again.transcripts]
        if said != [[message.ids for message in each.messages] for each in rollouts.transcripts]:
            return False
        if again.tokens_scored == 0 or again.tokens_decoded:
            return False
    return True


CONTEXTS = ([0, 2, 3], [2, 0, 0, 3, 2, 2, 3, 0, 3, 3, 2, 0, 2, 3, 0, 0, 2, 3, 2, 0])


def batch(contexts, pad: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, padded on the left."""
    width = max(map(len, contexts))
    ids = torch.tensor([[pad] * (width - len(context)) + context for context in contexts])
    mask = torch.tensor([[0] * (width - len(context)) + [1] * len(context) for context in contexts])
    return ids, mask


def score(member, contexts: list[list[int]], answers: list[list[int]]) -> torch.Tensor:
    """Log-probabilities of `answers` after `contexts`, as the trainer scores the views of a batch."""
    views = [View(prompt_ids=list(context)) for context in contexts]
    for view, answer in zip(views, answers, strict=True):
        view.write(list(answer))
    return member.speaker.token_logps(member.speaker.view_batch(views))


def padding_difference(member) -> float:
    answer = [2, 3, 0]
    alone, beside = (score(member, contexts, [answer] * len(contexts)) for contexts in (CONTEXTS[:1], CONTEXTS))
    return (alone[0, : len(answer)] - beside[0, : len(answer)]).abs().max().item()


def generation_difference(member) -> float:
    ids, mask = batch(CONTEXTS)
    kwargs = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": True, "top_k": 0, "eos_token_id": 1}
    with member.speaker.policy.generating({}) as model:
        output = model.generate(
            ids, attention_mask=mask, pad_token_id=1, return_dict_in_generate=True, output_logits=True, **kwargs
        )
    answers = output.sequences[:, ids.size(1) :]
    logps = torch.stack(output.logits, dim=1).float().log_softmax(dim=-1)
    generated = logps.gather(2, answers[..., None])[..., 0]
    return (generated - score(member, CONTEXTS, answers.tolist())).abs().max().item()


def main(options) -> list[Row]:
    sys.path.insert(0, str(HERE.parent / "benchmarks"))
    from machine import describe_machine

    print("$ python " + " ".join(["tests/family_sweep.py", *sys.argv[1:]]))
    print(describe_machine())
    print(f"{'architecture':<18}{'mode':<13}" + "".join(f"{name:<9}" for name in CHECKS), end="")
    print("".join(f"{name:<11}" for name in DIFFERENCES), flush=True)
    start, rows = time.time(), []
    for kind in options.only:
        # What libraries announce is no part of the output
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            rows.append(sweep(kind, Path(folder)))
        print(rows[-1].line(), flush=True)
    wrong = {row.kind: row.wrong for row in rows if row.wrong}
    refused = [row.kind for row in rows if row.refused]
    print(
        json.dumps(
            {"architectures": len(rows), "refused": refused, "wrong": wrong, "seconds": round(time.time() - start)}
        )
    )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(FAMILIES), default=list(FAMILIES), metavar="ARCHITECTURE")
    if any(row.wrong for row in main(parser.parse_args())):
        raise SystemExit(1)
