"""What each agent's `GRPOTrainer` is given."""

import pytest

from trl_teamtr import Agent
from trl_teamtr.agents.member_args import agent_args, grpo_arguments
from trl_teamtr.tasks.link import make_model, make_tokenizer


# agent_args


def test_generation_kwargs_that_are_fields_go_to_the_fields(make_config):
    args = make_config(temperature=0.8, max_completion_length=64)
    kwargs = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "max_completion_length": 32,
        "num_beams": 1,
    }
    own = agent_args(args, Agent("a", "model", generation_kwargs=kwargs), lead=True)
    assert (own.temperature, own.top_p, own.top_k, own.min_p) == (0.5, 0.9, 7, 0.1)
    assert (own.repetition_penalty, own.max_completion_length) == (1.1, 32)
    assert own.generation_kwargs == {"num_beams": 1}
    assert (args.temperature, args.max_completion_length, args.top_p) == (0.8, 64, 1.0)
    assert args.generation_kwargs is None and len(kwargs) == 7


def test_max_new_tokens_is_the_length_of_a_message(make_config):
    agent = Agent("a", "model", generation_kwargs={"max_new_tokens": 5})
    own = agent_args(make_config(max_completion_length=64), agent, lead=True)
    assert own.max_completion_length == 5 and own.generation_kwargs is None


def test_generation_kwargs_of_the_agent_go_before_those_of_the_config(make_config):
    args = make_config(generation_kwargs={"temperature": 0.3, "no_repeat_ngram_size": 2, "num_beams": 1})
    own = agent_args(args, Agent("a", "model", generation_kwargs={"no_repeat_ngram_size": 4}), lead=True)
    assert own.temperature == 0.3
    assert own.generation_kwargs == {"no_repeat_ngram_size": 4, "num_beams": 1}
    assert args.generation_kwargs == {"temperature": 0.3, "no_repeat_ngram_size": 2, "num_beams": 1}


def test_agent_without_settings_has_those_of_the_config(make_config):
    args = make_config(temperature=0.8, learning_rate=3e-4, model_init_kwargs={"dtype": "float32"})
    own = agent_args(args, Agent("a", "model"), lead=True)
    assert own == args and own is not args
    assert own.generation_kwargs is None and own.chat_template_kwargs is None


def test_chat_template_kwargs_are_merged(make_config):
    args = make_config(chat_template_kwargs={"enable_thinking": True, "tone": "dry"})
    own = agent_args(args, Agent("a", "model", chat_template_kwargs={"enable_thinking": False}), lead=True)
    assert own.chat_template_kwargs == {"enable_thinking": False, "tone": "dry"}
    assert args.chat_template_kwargs == {"enable_thinking": True, "tone": "dry"}


def test_learning_rate_of_the_agent(make_config):
    args = make_config(learning_rate=1e-5)
    assert agent_args(args, Agent("a", "model", learning_rate=1e-3), lead=True).learning_rate == 1e-3
    assert args.learning_rate == 1e-5


def test_model_init_kwargs_are_only_for_paths(make_config):
    model = make_model(make_tokenizer(), seed=0)
    args = make_config(model_init_kwargs={"dtype": "float32"})
    assert agent_args(args, Agent("a", "path"), lead=True).model_init_kwargs == {"dtype": "float32"}
    assert agent_args(args, Agent("a", model), lead=True).model_init_kwargs is None


def test_only_the_lead_logs_saves_and_evaluates(make_config):
    args = make_config(
        log_completions=True,
        push_to_hub=True,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
    )
    args.report_to = ["tensorboard"]
    lead, other = (agent_args(args, Agent("a", "model"), lead=lead) for lead in (True, False))
    assert lead.report_to == ["tensorboard"] and lead.log_completions and lead.push_to_hub
    assert lead.do_eval and lead.eval_strategy == "steps" and lead.load_best_model_at_end
    assert other.report_to == [] and not other.log_completions and not other.push_to_hub
    assert not other.do_eval and other.eval_strategy == "no" and not other.load_best_model_at_end


@pytest.mark.parametrize("lead", [True, False])
def test_own_tokenizer_goes_before_the_trainers(make_config, lead):
    own, default, args = make_tokenizer(), make_tokenizer(), make_config()

    def chosen(agent, processing_class):
        return grpo_arguments(agent, args, processing_class, lead, num_trained=1)["processing_class"]

    assert chosen(Agent("a", "m", processing_class=own), default) is own
    assert chosen(Agent("a", "m"), default) is default
    assert chosen(Agent("a", "m"), None) is None


def test_stages_become_updates_and_the_peers_leave_reports_to_the_lead(make_config):
    args = make_config(num_stages=4, log_completions=True)
    lead, peer = (agent_args(args, Agent("a", "m"), is_lead, num_trained=3) for is_lead in (True, False))
    assert lead.max_steps == peer.max_steps == 12 and args.max_steps == -1
    assert (lead.log_completions, peer.log_completions, peer.report_to) == (True, False, [])


@pytest.mark.parametrize("kwargs", [{"max_completion_length": 0}, {"max_new_tokens": 0}])
def test_own_settings_are_checked_as_those_of_a_config_are(make_config, kwargs):
    with pytest.raises(ValueError, match="Agent 'a': `max_completion_length` must be at least 1, or `None`.*, got"):
        agent_args(make_config(num_stages=3), Agent("a", "model", generation_kwargs=kwargs), lead=True)
