"""Bad input: each fault is an error that names it, before anything is generated."""

import json
import sys
from datetime import datetime

import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import LoraConfig, get_peft_model
from tiny import PROMPTS, answer_reward, make_config, make_model, make_team, make_tokenizer, make_trainer
from tool_teams import PROMPT, Dial, tool_team
from transformers import ProcessorMixin, T5Config, T5ForConditionalGeneration
from trl import GRPOConfig
from vllm_teams import in_process, on_server

from trl_teamtr import Agent, TeamTRTrainer
from trl_teamtr.checks import preflight
from trl_teamtr.checks.preflight import check_vllm, refuse_processors
from trl_teamtr.policy.backend import PlainBackend
from trl_teamtr.policy.generation import vllm_package


@pytest.fixture(autouse=True)
def no_generation(monkeypatch, request):
    """Fails a test in which anything is generated before the error, unless the test is about generated text."""
    if "generates" not in request.keywords:

        def generate(*args, **kwargs):
            pytest.fail("generated before the input was checked")

        monkeypatch.setattr(PlainBackend, "generate", generate)


def rows(*prompts, **columns):
    return Dataset.from_dict({"prompt": list(prompts), **columns})


CHAT = [{"role": "user", "content": "ua"}]


@pytest.mark.parametrize(
    "dataset, message",
    [
        (Dataset.from_dict({"question": ["a"]}), "train dataset has no 'prompt' column; its columns are question"),
        (Dataset.from_dict({"prompt": []}), "train dataset is empty"),
        (rows("a", images=[["x.png"]]), "image column"),
        (rows("a", agent_prompts=["text"]), "must be a dict from agent name"),
        (rows("a", agent_prompts=[{"x": "1", "nobody": "2"}]), "name nobody, but the team is x, y"),
        (rows([{"role": "user", "content": [{"type": "text", "text": "hi"}]}]), "structured content"),
        (rows(*PROMPTS, None), f"Row {len(PROMPTS)} of the train dataset: it has no prompt"),
        (rows([]), "Row 0 of the train dataset: its prompt has no turns. A prompt is a string, or a list of turns"),
        (rows([{"role": "system", "content": "u"}]), "Row 0 .*: its prompt is a system turn alone"),
        (rows([{"role": "assistant", "content": "u"}]), "Row 0 .*: its prompt begins with an assistant turn"),
        (rows([{"role": "user", "content": None}]), "Row 0 .*: turn 0 of its prompt has structured content or none"),
        (rows([{"who": "user"}]), "Row 0 .*: turn 0 of its prompt has no 'role'"),
        (Dataset.from_dict({"prompt": [7]}), "Row 0 of the train dataset: its prompt is of type int"),
        (rows("a" * 500, *PROMPTS), "row 0 of the train dataset takes .* tokens in the view of agent 'x'"),
        (rows(*PROMPTS, agent_prompts=[{"y": "u"}] * 7 + [{"y": "u" * 300}]), "row 7 .* agent 'y'"),
        (rows(CHAT), "tokenizer of agent 'x' has no chat template"),
    ],
)
def test_faults_of_the_dataset(tmp_path, dataset, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, make_team(2), dataset=dataset)


@pytest.mark.parametrize("name, shown", [("hard", "hard"), ("train", "eval 'train'")])
def test_faults_of_an_evaluation_dataset_name_it(tmp_path, name, shown):
    with pytest.raises(ValueError, match=f"{shown} dataset has no 'prompt'"):
        TeamTRTrainer(
            make_team(2),
            answer_reward,
            make_config(tmp_path),
            train_dataset=rows(*PROMPTS),
            eval_dataset={"easy": rows("a"), name: Dataset.from_dict({"text": ["a"]})},
        )


@pytest.mark.parametrize(
    "dataset, message",
    [
        (
            DatasetDict(train=rows("a"), test=rows("u")),
            r"is a dict of several: 'train', 'test'. Pass one, `dataset\['...'\]`",
        ),
        ([{"prompt": "a"}], r"is a list. Pass a `datasets.Dataset` \(`Dataset.from_list"),
    ],
)
def test_what_is_no_dataset(tmp_path, dataset, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, make_team(2), dataset=dataset)


def test_router_that_is_a_name_belongs_to_the_config(tmp_path):
    with pytest.raises(TypeError, match=r"got 'random'. Set a built-in one in the config: `TeamTRConfig"):
        make_trainer(tmp_path, make_team(2), router="random")


def test_dataset_that_is_evaluated_later_is_looked_at_too(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2))
    with pytest.raises(ValueError, match="The eval dataset has no 'prompt' column"):
        trainer.evaluate(Dataset.from_dict({"text": ["a"]}))


def test_template_of_one_turn_is_refused_where_an_agent_may_speak_twice(tmp_path):
    template = (
        "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}{{ messages[0]['content'] }}"
    )

    def make(**fields):
        team = make_team(2)
        for agent in team:
            agent.processing_class.chat_template = template
        return make_trainer(tmp_path, team, dataset=rows(CHAT, CHAT), **fields)

    make()
    for fields in ({"num_rounds": 2}, {"router_kind": "random"}):
        with pytest.raises(ValueError, match="one turn only|template"):
            make(**fields)


def test_random_router_is_asked_often_enough_whatever_the_dataset(tmp_path):
    make_trainer(tmp_path, make_team(3), dataset=rows("a", "u"), router_kind="random")


def test_missing_reward(tmp_path):
    with pytest.raises(ValueError, match="No reward source"):
        TeamTRTrainer(make_team(2), args=make_config(tmp_path), train_dataset=rows("a"))


def test_team_without_config_is_checked_too():
    with pytest.raises(ValueError, match="team is empty"):
        TeamTRTrainer([], answer_reward, train_dataset=rows("a"))


def test_missing_dataset(tmp_path):
    with pytest.raises(ValueError, match="`train_dataset` is required"):
        TeamTRTrainer(make_team(2), answer_reward, make_config(tmp_path))


def test_dataset_smaller_than_a_stage(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), dataset=rows("a"))
    with pytest.raises(ValueError, match="has 1 rows, but one stage needs 2 prompts"):
        trainer.train()


def test_template_that_cannot_take_other_agents_turns(tmp_path):
    team = make_team(2)
    for agent in team:
        agent.processing_class.chat_template = (
            "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}{{ messages[0]['content'] }}"
        )
    make_trainer(tmp_path, team, dataset=rows(CHAT))  # speaking once is fine
    with pytest.raises(ValueError, match="agent 'x' cannot take other agents' turns.*one turn only"):
        make_trainer(tmp_path, team, dataset=rows(CHAT), num_rounds=2)


@pytest.mark.parametrize(
    "names, message", [(["x", "x"], "occur more than once: x"), ([""], "Got ''"), (["a/b"], "Got 'a/b'")]
)
def test_faults_of_names(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, [Agent(name, make_model(), processing_class=make_tokenizer()) for name in names])


def test_empty_team(tmp_path):
    with pytest.raises(ValueError, match="team is empty"):
        make_trainer(tmp_path, [])


def test_team_of_other_things_than_agents(tmp_path):
    with pytest.raises(TypeError, match="list of `Agent`, got an element of type str"):
        make_trainer(tmp_path, ["Qwen/Qwen3-0.6B"])


def test_team_without_a_trainable_agent(tmp_path):
    with pytest.raises(ValueError, match="No agent of the team is trainable"):
        make_trainer(tmp_path, make_team(2, trainable=False))


def test_num_agents_that_contradicts_the_list(tmp_path):
    with pytest.raises(ValueError, match="`num_agents` is 3, but `model` lists 2"):
        make_trainer(tmp_path, make_team(2), num_agents=3)


def test_one_model_object_for_two_fully_trained_agents(tmp_path):
    model = make_model()
    with pytest.raises(ValueError, match="'x' and 'y' hold the same model object"):
        make_trainer(tmp_path, [Agent(n, model, processing_class=make_tokenizer()) for n in "xy"])


def test_unknown_name_in_a_routers_answer(tmp_path):
    with pytest.raises(ValueError, match="router answered 'nobody' at turn 1.*one of x, y"):
        make_trainer(tmp_path, make_team(2), router=lambda t: "nobody" if t.messages else "x")


def test_agent_that_never_speaks(tmp_path):
    with pytest.raises(ValueError, match="router never calls y, z within 1 turns"):
        make_trainer(tmp_path, make_team(3), max_turns=1)
    with pytest.raises(ValueError, match="router never calls x"):
        make_trainer(tmp_path, make_team(2), router=lambda t: None if t.messages else "y")
    make_trainer(tmp_path, make_team(2), router=lambda t: "y", allow_silent_agents=True)
    team = make_team(2)
    team[0].trainable = False
    make_trainer(tmp_path, team, router=lambda t: "y")


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"num_generations": 1}, "at least 2 generations"),
        ({"per_device_train_batch_size": 6}, "divisible by num_generations"),
        ({"trust_region_radius": 0.0}, "radius is a positive KL"),
        ({"trust_region_radius": -1.0}, "radius is a positive KL"),
        ({"use_vllm": True, "vllm_tensor_parallel_size": 2}, "`vllm_tensor_parallel_size=2` is not supported"),
        ({"top_p": 0.9, "kl_estimator": "k3"}, "'x' samples with top_p=0.9, but `kl_estimator='k3'`"),
        ({"generation_kwargs": {"top_p": 0.5}, "kl_estimator": "k3"}, "samples with top_p=0.5"),
    ],
)
def test_faults_of_the_config(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, make_team(2), **fields)


def test_truncated_sampling_is_fine_with_the_exact_kl_and_without_a_radius(tmp_path):
    make_trainer(tmp_path, make_team(2), top_p=0.9, kl_estimator="exact")
    make_trainer(tmp_path, make_team(2), top_p=0.9, trust_region_radius=None)


def test_radius_of_an_agent(tmp_path):
    with pytest.raises(ValueError, match="`trust_region_radius` of agent 'x' is 0"):
        make_team(1, trust_region_radius=0)


def test_config_of_trl(tmp_path):
    with pytest.raises(TypeError, match="must be a `TeamTRConfig`, got GRPOConfig"):
        TeamTRTrainer(make_team(1), answer_reward, GRPOConfig(str(tmp_path), use_cpu=True, bf16=False))


def test_unsupported_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`rollout_func` is not supported by TeamTRTrainer"):
        TeamTRTrainer(
            make_team(2), answer_reward, make_config(tmp_path), train_dataset=rows("a"), rollout_func=lambda: None
        )


def turn() -> str:
    """A tool."""


@pytest.mark.parametrize(
    "fault, message",
    [
        (
            {"max_tool_result_length": 122},
            "has room for 126 tokens before a message, but a result of its tools may take 126",
        ),
        (
            {"dataset": rows("a")},
            "has tools, which its chat template describes to it, but the prompts of the train dataset",
        ),
        (
            {"dataset": Dataset.from_dict({"prompt": [PROMPT], "when": [datetime.now()]})},
            "column 'when' .* holds a datetime",
        ),
    ],
)
def test_what_a_team_with_tools_cannot_work_with(tmp_path, fault, message):
    fields = {"dataset": Dataset.from_dict({"prompt": [PROMPT]}), "max_tool_result_length": 1} | fault
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, tool_team(), environment_factory=Dial, **fields)


def test_tools_that_may_be_called_without_end(tmp_path):
    trainer = make_trainer(
        tmp_path,
        tool_team(),
        dataset=Dataset.from_dict({"prompt": [PROMPT]}),
        tools=[turn],
        max_tool_result_length=1,
        max_tool_calling_iterations=3,
    )
    speaker = trainer.team.speakers[0]
    speaker.max_view_length = sys.maxsize
    splits = {"train": trainer.train_dataset}
    preflight.check_tools(trainer.team.speakers, splits)
    speaker.tools.max_uses = sys.maxsize
    with pytest.raises(ValueError, match="Nothing limits how often agent 'x' calls its tools"):
        preflight.check_tools(trainer.team.speakers, splits)


def test_one_optimizer_for_several_agents(tmp_path):
    team = make_team(2)
    optimizer = torch.optim.SGD(team[0].model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="`optimizers` is one optimizer, but each agent has its own"):
        TeamTRTrainer(
            team, answer_reward, make_config(tmp_path), train_dataset=rows("a"), optimizers=(optimizer, None)
        )


def test_output_directory_of_another_team(tmp_path):
    (tmp_path / "team.json").write_text(json.dumps({"agents": [{"name": "solver"}]}))
    with pytest.raises(ValueError, match="holds another team: its agents are solver; this team's are x, y"):
        make_trainer(tmp_path, make_team(2))


def test_adapter_on_a_base_without_a_path_is_warned_of(tmp_path):
    team = make_team(1, peft_config=LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.warns(UserWarning, match="base model of agent 'x' was not loaded from a path"):
        make_trainer(tmp_path, team)


def test_evaluation_batch_with_half_a_group(tmp_path):
    trainer = make_trainer(tmp_path, make_team(1), num_generations_eval=3)
    with pytest.raises(ValueError, match=r"evaluation batch \(8 rollouts.*whole groups of 3"):
        trainer.evaluate()


def test_evaluation_before_the_engines_of_deepspeed_are_made(tmp_path):
    trainer = make_trainer(tmp_path, make_team(1))
    trainer.is_deepspeed_enabled = True  # what a launch with zero3.yaml makes it
    with pytest.raises(ValueError, match="eval_on_start"):
        trainer.evaluate()


def wrong_length(completions, **kwargs):
    return [0.0]


def nan_in_row_3(completions, **kwargs):
    return [float("nan") if i == 3 else 0.0 for i, _ in enumerate(completions)]


async def infinite(completions, **kwargs):
    return [float("inf") for _ in completions]


def words(completions, **kwargs):
    return ["good" for _ in completions]


@pytest.mark.generates
@pytest.mark.parametrize(
    "reward, error, message",
    [
        (wrong_length, ValueError, "'wrong_length' returned 1 rewards for 8 rollouts"),
        (nan_in_row_3, ValueError, "'nan_in_row_3' returned nan for row 3"),
        (infinite, ValueError, "'infinite' returned inf for row 0"),
        (words, TypeError, "'words' returned 'good' for row 0"),
    ],
)
def test_faults_of_reward_functions_stop_the_run_before_an_update(tmp_path, reward, error, message):
    trainer = make_trainer(tmp_path, make_team(2), reward_funcs=reward)
    before = [p.clone() for p in trainer.model.parameters()]
    with pytest.raises(error, match=message):
        trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


@pytest.mark.generates
def test_reward_model_that_returns_nan(tmp_path):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=3, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_labels=1
    )
    model = LlamaForSequenceClassification(config)
    torch.nn.init.constant_(model.score.weight, float("nan"))
    trainer = TeamTRTrainer(
        make_team(1),
        model,
        make_config(tmp_path),
        train_dataset=rows(*PROMPTS),
        reward_processing_classes=make_tokenizer(),
    )
    with pytest.raises(ValueError, match="reward model .* returned nan for row 0"):
        trainer.train()


@pytest.mark.generates
def test_unknown_name_in_a_late_answer_of_the_router(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2))
    trainer.team.rules.router = lambda t: "nobody"
    with pytest.raises(ValueError, match="router answered 'nobody'"):
        trainer.train()


# Found late once


def test_a_frozen_adapter_is_nothing_to_train(tmp_path):
    model = get_peft_model(make_model(), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="Agent 'x' is trainable, but none of the weights of its model are"):
        make_trainer(tmp_path, [Agent("x", model, processing_class=make_tokenizer())])
    make_trainer(tmp_path, [*make_team(1), Agent("y", model, processing_class=make_tokenizer(), trainable=False)])


@pytest.mark.parametrize("added", ["word", "pad token", "of the template"])
def test_ids_beyond_the_embeddings_are_refused(tmp_path, added):
    tokenizer = make_tokenizer(3)
    tokenizer.add_tokens(["<more>"], special_tokens=added != "word")
    if added == "pad token":
        tokenizer.pad_token = "<more>"
    if added == "of the template":
        tokenizer.chat_template = str(tokenizer.chat_template) + "<more>"
    with pytest.raises(
        ValueError, match="tokenizer of agent 'x' has ids up to 3, but the embeddings .* have 3 entries"
    ):
        make_trainer(tmp_path, [Agent("x", make_model(3), processing_class=tokenizer)])


def test_a_control_token_beyond_the_embeddings_that_no_conversation_contains_is_none(tmp_path):
    tokenizer = make_tokenizer(3)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    make_trainer(tmp_path, [Agent("x", make_model(3), processing_class=tokenizer)])


def test_an_encoder_decoder_is_no_agent(tmp_path):
    config = T5Config(vocab_size=3, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config)
    with pytest.raises(ValueError, match="agent 'x' is an encoder-decoder .T5ForConditionalGeneration."):
        make_trainer(tmp_path, [Agent("x", model, processing_class=make_tokenizer())])


def test_a_dict_of_models_is_no_team(tmp_path):
    with pytest.raises(TypeError, match="`model` is a dict. A team is a list of agents"):
        make_trainer(tmp_path, {"x": make_model()})


@pytest.mark.parametrize(
    "base, error, message",
    [
        (None, ValueError, "does not say of which base model it is"),
        ("/moved/base", FileNotFoundError, "the base model '/moved/base' of the adapter .* is not there"),
    ],
)
def test_an_adapter_without_its_base_names_agent_and_base(tmp_path, base, error, message):
    model = get_peft_model(make_model(), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    model.save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))
    with pytest.raises(error, match=f"Agent 'x': .*{message}"):
        make_trainer(tmp_path, [Agent("x", str(tmp_path / "adapter"), processing_class=make_tokenizer())])


def test_a_column_of_transcripts_would_be_shadowed(tmp_path):
    with pytest.raises(ValueError, match="train dataset has a 'transcripts' column"):
        make_trainer(tmp_path, make_team(1), dataset=rows("a", "u", transcripts=["x", "y"]))


def test_a_checkpoint_of_a_single_model_is_no_teams(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text("{}")
    trainer = make_trainer(tmp_path, make_team(2))
    with pytest.raises(ValueError, match="is a checkpoint of a single model, for example of a `GRPOTrainer`"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_a_processor_is_refused_where_agents_speak_through_servers():
    class Processor(ProcessorMixin):
        def __init__(self):
            pass

    refuse_processors({"x": make_tokenizer()})
    with pytest.raises(ValueError, match="'y' has a Processor.*Pass its tokenizer as `processing_class`"):
        refuse_processors({"x": make_tokenizer(), "y": Processor()})


def test_vllm_in_this_process_is_looked_for_before_a_model_is_loaded(tmp_path, monkeypatch):
    def none():
        raise ImportError("there is none")

    monkeypatch.setattr(vllm_package, "find_vllm", none)
    with pytest.raises(ImportError, match="there is none"):
        make_trainer(tmp_path, [Agent("x", "nowhere"), Agent("y", "nowhere")], **in_process())
    check_vllm(make_config(tmp_path, **on_server("http://a")))
    check_vllm(make_config(tmp_path))
