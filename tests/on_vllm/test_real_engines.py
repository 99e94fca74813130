"""
Teams on real vLLM engines in the process of the training, on the CPU: `make test-vllm`, in an environment that has vLLM.
"""

import gc
import json
import os

import pytest
from accelerate import Accelerator
from distributed.launching import derive_config, launch
from engine_contract import check_adapters, check_messages, check_sleep, check_weights, make_engine
from policies import check_logps, shift
from real_vllm import SHAPES
from sampled_law import LAWS, check_law
from tiny import BY_TURN, changed, make_model, make_trainer, weights
from transformers import TrainerCallback
from vllm_teams import in_process, lora_team, make_engines, save_base, speakers_of

from trl_teamtr import Agent
from trl_teamtr.policy.backend import Request
from trl_teamtr.policy.generation.engine_checks import engine_arguments
from trl_teamtr.policy.generation.engine_settings import EngineSettings
from trl_teamtr.policy.generation.served import save_adapter


pytestmark = pytest.mark.vllm_engine

TRAINED = {"num_rounds": 2, "trust_region_radius": 1.0, "learning_rate": 0.005, "resampling": "speculative"}
RATIO = "sampling/importance_sampling_ratio/max"
CORRECTED = {"vllm_importance_sampling_correction": True, "vllm_importance_sampling_mode": "token_truncate"}
SETTINGS = EngineSettings(0.1, None, 64, False, "vllm", "unused", 1e-4)
BLOCK = {"block_size": 32}  # the shortest prefix that is cached; by default 128, more than these models read


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return [save_base(folder / name, seed, size=4, **SHAPES) for name, seed in (("base", 0), ("other", 7))]


@pytest.fixture(autouse=True)
def released():
    """Engines of a test before this one are gone."""
    yield
    gc.collect()


@pytest.fixture
def tell(capsys):
    """Prints a line in spite of pytest."""

    def tell(line: str):
        with capsys.disabled():
            print(f"\n{line}", end="")

    return tell


class Watch(TrainerCallback):
    """Counts the adapters of an engine after each update, and the folders of their versions."""

    def __init__(self, folder):
        self.folder, self.engine, self.held, self.folders = folder, None, [], []

    def on_step_end(self, args, state, control, **kwargs):
        self.held.append(self.engine.num_adapters)
        self.folders.append(len(os.listdir(self.folder)))


def engines_of(trainer):
    """The engine of each agent."""
    fleet = trainer.members[0].speaker.backend
    return {name: placed.engine for name, placed in fleet._placed.items()}


def test_a_real_engine_does_what_the_fake_one_does(bases, tmp_path):
    speakers = speakers_of(lora_team(bases[0]))
    engine = make_engine(engine_arguments(speakers, SETTINGS) | BLOCK, Accelerator())
    saved = {}
    for speaker in speakers:
        save_adapter(speaker, str(tmp_path / speaker.name))
        saved[speaker.name] = (str(tmp_path / speaker.name), speaker.policy.model)
    check_adapters(engine, saved)
    check_sleep(engine, *saved["x"])  # on a CPU it keeps its memory, but forgets its caches
    engine.load_adapter("m", saved["x"][0])
    check_messages(engine, "m")


def test_a_real_engine_takes_whole_weights(bases):
    engine = make_engine(engine_arguments(speakers_of([Agent("w", bases[1])]), SETTINGS) | BLOCK, Accelerator())
    check_messages(engine, None)
    check_weights(engine, [make_model(4, seed, **SHAPES) for seed in (3, 5)])


def test_agents_of_one_turn_each_speak_with_their_weights(bases, tmp_path):
    base, other = bases
    agents = [*lora_team(base, "xy", generation_kwargs={"temperature": 0.7}), Agent("f", base, trainable=False)]
    speakers = speakers_of([*agents, Agent("w", other)])
    fleet = make_engines(speakers, tmp_path / "sync")
    requests = [Request(name, context, 4) for context in ([2], [0, 2], [2, 2, 0, 3], [2, 3] * 30) for name in "wfxy"]
    for _ in range(3):
        check_logps(speakers, requests, fleet.generate(requests), atol=1e-4)
        for speaker in (speaker for speaker in speakers if speaker.agent.trainable):
            shift(speaker)
            fleet.publish(speaker.name)
    fleet.close()
    assert not (tmp_path / "sync").exists()


@pytest.mark.parametrize("fields", LAWS.values(), ids=list(LAWS))
def test_messages_of_a_real_engine_have_the_law_that_they_are_verified_against(bases, tmp_path, fields):
    (speaker,) = speakers_of(lora_team(bases[0], "x"), max_completion_length=2, **fields)
    check_law(speaker, make_engines([speaker], tmp_path / "sync"), 600)


def test_three_adapters_and_a_frozen_agent_on_one_engine_and_a_whole_model_on_another(bases, tmp_path, tell):
    base, other = bases
    team = [*lora_team(base, "xyz"), Agent("f", base, trainable=False), Agent("w", other)]
    watch = Watch(tmp_path / "run" / ".vllm")
    fields = TRAINED | in_process(**CORRECTED)
    trainer = make_trainer(tmp_path / "run", team, num_stages=3, callbacks=[watch], **fields)
    watch.engine = engines_of(trainer)["x"]
    assert watch.engine is engines_of(trainer)["f"] is not engines_of(trainer)["w"]
    before = {member.name: weights(member.model) for member in trainer.trained_members}
    trainer.train()
    logs = [log for log in trainer.state.log_history if "sampling/max" in log]
    largest, ratios = (max(log[name] for log in logs) for name in ("sampling/max", RATIO))
    tell(
        f"{trainer.state.global_step} updates, {len(logs)} with freshly sampled messages; largest difference of a token's "
        f"log-probabilities {largest:.1e} nats; largest weight of the correction 1 + {ratios - 1:.1e}"
    )
    tell(f"adapters in the engine after each update {watch.held}, folders of versions {watch.folders}")
    assert trainer.state.global_step == 12 and len(logs) >= 9
    assert largest < 1e-4 and abs(ratios - 1) < 1e-4
    assert all(changed(before[member.name], member.model) for member in trainer.trained_members)
    assert max(watch.held) == max(watch.folders) == 4  # of each agent one
    assert watch.engine.num_adapters == 0 and not os.path.exists(tmp_path / "run" / ".vllm")


@pytest.mark.parametrize("credit", ["suffix", "message"])
def test_branches_speak_through_engines_and_are_scored_as_sampled(bases, tmp_path, tell, credit):
    """Their messages begin with contexts that the engine has read, and may have kept."""
    team = [*lora_team(bases[0]), Agent("w", bases[1])]
    fields = TRAINED | BY_TURN | in_process(**CORRECTED)
    trainer = make_trainer(tmp_path / "run", team, num_stages=2, credit=credit, **fields)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "sampling/max" in log]
    tell(f"{len(logs)} updates; largest difference {max(log['sampling/max'] for log in logs):.1e} nats")
    assert len(logs) == 6 and max(log["sampling/max"] for log in logs) < 1e-4
    assert max(abs(log[RATIO] - 1) for log in logs) < 1e-4


def test_a_run_is_resumed_on_new_engines_and_ends_with_the_same_weights(bases, tmp_path):
    fields = TRAINED | {"num_stages": 2, "save_strategy": "steps", "save_steps": 4} | in_process()
    ends = []
    for name, checkpoint in (("run", None), ("again", str(tmp_path / "run" / "checkpoint-4"))):
        team = [*lora_team(bases[0]), Agent("w", bases[1])]
        trainer = make_trainer(tmp_path / name, team, **fields)
        trainer.train(resume_from_checkpoint=checkpoint)
        assert trainer.state.global_step == 6
        ends.append([weights(member.model) for member in trainer.members])
    for ours, theirs in zip(*ends, strict=True):
        assert [name for name in ours if not ours[name].equal(theirs[name])] == []


def test_two_processes_have_engines_of_their_own(bases, tmp_path):
    config = derive_config("multi_gpu", tmp_path)
    launch(config, "run_colocated.py", *bases, tmp_path, timeout=600)
    ours = [json.loads((tmp_path / f"colocated-{rank}.json").read_text()) for rank in (0, 1)]
    assert all(found["processes"] == 2 for found in ours) and ours[0]["sums"] == ours[1]["sums"]
    assert len(ours[0]["largest"]) > 2 and max(ours[0]["largest"]) < 1e-4


def test_sleep_is_refused_on_a_cpu_where_vllm_has_none(bases, tmp_path):
    with pytest.raises(ValueError, match="`vllm_enable_sleep_mode=True` moves .* the run is on a CPU"):
        make_trainer(tmp_path / "run", lora_team(bases[0]), **in_process(vllm_enable_sleep_mode=True))
