"""Teams so small that every rollout can be listed with its exact probability, and configs for them."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from trl_teamtr import Agent, Message, TeamTRConfig, TeamTRTrainer, Transcript
from trl_teamtr.rollouts.rollouts import Rollouts
from trl_teamtr.rollouts.rollouts import replay as replay_transcripts
from trl_teamtr.trust_region.engines import PlainEngine


def make_tokenizer(size: int = 3) -> PreTrainedTokenizerFast:
    """`size` tokens: "u" for every unknown character, "." for the end of a turn, and letters."""
    vocab = {token: i for i, token in enumerate(["u", ".", "a", "b"][:size])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="u"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=".", pad_token=".", padding_side="left")


def make_model(size: int = 3, seed: int = 0, **fields) -> Qwen3ForCausalLM:
    """A Qwen3 model whose distributions are far from uniform and differ between contexts; `fields` are of its config."""
    torch.default_generator.manual_seed(seed)
    defaults = {
        "vocab_size": size,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "initializer_range": 0.4,
        "tie_word_embeddings": False,
        "eos_token_id": 1,
        "pad_token_id": 1,
        "bos_token_id": None,
    }
    return Qwen3ForCausalLM(Qwen3Config(**(defaults | fields)))


def make_team(num_agents: int = 2, size: int = 3, seed: int = 0, **fields) -> list[Agent]:
    tokenizer = make_tokenizer(size)
    return [
        Agent("xyz"[i], make_model(size, seed + i), processing_class=tokenizer, **fields) for i in range(num_agents)
    ]


def answer_reward(completions, transcripts, **kwargs):
    """Depends on every message, and differs between most rollouts."""
    rewards = []
    for messages in transcripts:
        letters = "".join(message["content"] for message in messages)
        rewards.append((letters.count("a") - 0.5 * letters.count("u") + 0.1 * len(messages[0]["content"])) / 4)
    return rewards


def make_config(output_dir, **fields) -> TeamTRConfig:
    defaults = {
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "max_completion_length": 2,
        "num_stages": 1,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
    }
    return TeamTRConfig(str(output_dir), **(defaults | fields))


PASSED_ON = (
    "router",
    "stop_condition",
    "callbacks",
    "processing_class",
    "peft_config",
    "tools",
    "environment_factory",
)  # to the trainer, not to the config
# Groups by turn, and what they need
BY_TURN = {"advantage_group": "turn", "scale_rewards": "none", "loss_type": "dr_grpo"}
PROMPTS = ["a", "aa", "u", "ua", "au", "uu", "aau", "auu"]


def make_trainer(output_dir, team, reward_funcs=answer_reward, dataset=None, **fields) -> TeamTRTrainer:
    arguments = {name: fields.pop(name) for name in PASSED_ON if name in fields}
    if "router_kind" in fields:  # the config field, whose name the trainer's argument shadows
        fields["router"] = fields.pop("router_kind")
    dataset = Dataset.from_dict({"prompt": PROMPTS}) if dataset is None else dataset
    args = make_config(output_dir, **fields)
    return TeamTRTrainer(team, reward_funcs, args, train_dataset=dataset, eval_dataset=dataset, **arguments)


def weights(model):
    """Copies, by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changed(before, model):
    return any(not torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


@dataclass
class Rollout:
    """One rollout of an enumerable team: the messages, and the log-probability of each."""

    messages: list[Message]
    logps: list[float]

    @property
    def probability(self) -> float:
        return math.exp(math.fsum(self.logps))

    def logp_of(self, name: str) -> float:
        return sum(lp for message, lp in zip(self.messages, self.logps, strict=True) if message.agent == name)


def context_of(trainer, prompt: str, name: str, messages: list[Message]) -> list[int]:
    """
    What agent `name` reads, written down here a second time: the plain rendering as documented, own messages as ids, or as text
    without thoughts.
    """
    tokenizer = trainer.members[0]._tokenizer
    forgets = any(member.name == name and not member.agent.keep_thoughts for member in trainer.members)
    ids, text = [], prompt
    for message in messages:
        if message.agent == name and not forgets:
            ids += tokenizer(f"{text}\n\n{name}:")["input_ids"] + list(message.ids)
            text = ""
        else:
            text += f"\n\n{message.agent}: {message.text}"
    return ids + tokenizer(f"{text}\n\n{name}:")["input_ids"]


def next_logps(model, context: list[int], temperature: float = 1.0) -> torch.Tensor:
    with torch.no_grad():
        return (model(torch.tensor([context])).logits[0, -1].double() / temperature).log_softmax(-1)


def messages_of(trainer, model, name, context, cache) -> list[tuple[Message, float]]:
    """Every message of at most two tokens, with its log-probability."""
    key = (name, tuple(context))
    if key not in cache:
        eos, tokenizer = trainer._tokenizer.eos_token_id, trainer._tokenizer
        found, first = [], next_logps(model, context)
        for i, lp in enumerate(first.tolist()):
            if i == eos:
                found.append(((i,), lp))
                continue
            second = next_logps(model, context + [i])
            found += [((i, j), lp + lp2) for j, lp2 in enumerate(second.tolist())]
        (speaker,) = [member.speaker for member in trainer.members if member.name == name]
        cache[key] = [
            (
                Message(
                    name,
                    speaker.read(ids, tokenizer.decode(ids, skip_special_tokens=True), context).answer,
                    ids,
                    ids[-1] == eos,
                ),
                lp,
            )
            for ids, lp in found
        ]
    return cache[key]


def enumerate_rollouts(trainer, prompt: str, cache: dict | None = None) -> list[Rollout]:
    """All rollouts of the team with its present weights; `cache` is for calls with the same ones."""
    models, cache = {m.name: m.model for m in trainer.members}, {} if cache is None else cache
    done, open_ = [], [Rollout([], [])]
    while open_:
        rollout = open_.pop()
        transcript = Transcript(prompt, trainer.team.names, messages=rollout.messages)
        name = trainer.team.rules.next_speaker(transcript)
        if name is None:
            done.append(rollout)
            continue
        context = context_of(trainer, prompt, name, rollout.messages)
        for message, lp in messages_of(trainer, models.get(name), name, context, cache):
            open_.append(Rollout([*rollout.messages, message], [*rollout.logps, lp]))
    return done


def replay(trainer, prompt: str, rollouts: list[Rollout]) -> Rollouts:
    """The given rollouts with every agent's view of them, as `collect_rollouts` would have left them."""
    transcripts = [Transcript(prompt, trainer.team.names, messages=list(r.messages)) for r in rollouts]
    return replay_transcripts(transcripts, trainer.team.speakers)


def view_batch(agent, rollouts: Rollouts) -> dict[str, torch.Tensor]:
    """A member's views of `rollouts` as padded tensors."""
    return agent.speaker.view_batch(rollouts.views[agent.name])


class SimpleEngine(PlainEngine):
    """An engine of a model alone."""

    def __init__(self, model, optimizer):
        self.model = model
        super().__init__(SimpleNamespace(model=model, model_wrapped=model, optimizer=optimizer))
