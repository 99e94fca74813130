"""A team that can hold a conversation: speakers and their rules, without a trainer, a dataset, a reward or an optimizer."""

from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from transformers import set_seed

from .agents.agent import Agent, check_names
from .agents.settings import SpeakingSettings
from .agents.team_file import load_team, read_speaking_settings, read_team_file
from .conversation.router import Router
from .conversation.rules import RolloutRules, StopCondition, TurnTaking, make_rules
from .conversation.transcript import Message, Transcript
from .policy.backend import Backend
from .policy.evaluating import evaluating
from .policy.making import make_speakers
from .policy.speaker import Speaker
from .rollouts.drafts import Drafts
from .rollouts.rollouts import Rollouts
from .rollouts.turn_loop import TurnLoop


class Team:
    """
    Agents in conversation.

    Example:

    ```python
    >>> from trl_teamtr import Team

    >>> team = Team.from_pretrained("run")
    >>> (transcript,) = team.generate(["How many primes are there below 50?"], seed=0)
    >>> print(transcript)
    ```

    Args:
        speakers (`Sequence[Speaker]`): The members, in team order.
        rules ([`RolloutRules`]): Who speaks, and when a conversation ends.
        accelerator ([`~accelerate.Accelerator`]): Of the processes that hold the models together.

    Attributes:
        names (`tuple[str]`): Names of the members, in team order.
        turn_loop ([`TurnLoop`]): Lets them take turns.
    """

    def __init__(self, speakers: Sequence[Speaker], rules: RolloutRules, accelerator: Accelerator):
        self.speakers, self.rules, self.accelerator = list(speakers), rules, accelerator
        self.turn_loop = TurnLoop(self.speakers, rules, accelerator)
        self.names = self.turn_loop.names

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        router: Router | None = None,
        stop_condition: StopCondition | None = None,
        trust_remote_code: bool = False,
    ) -> "Team":
        """
        A saved team, which takes turns and samples by its saved settings.

        Args:
            path (`str`): Directory that [`~TeamTRTrainer.save_model`] wrote.
            router (`Callable[[Transcript], str | None]`, *optional*): The router, if the team used a custom one.
            stop_condition (`Callable[[Transcript], bool]`, *optional*): The stop condition, if it used one.
            trust_remote_code (`bool`, *optional*, defaults to `False`): Whether to run code that comes with the models.

        Raises:
            `FileNotFoundError`: If there is no team in `path`.
        """
        agents, settings = load_team(path), read_speaking_settings(path)
        for agent in agents:
            agent.trust_remote_code = trust_remote_code
        turns = TurnTaking(**read_team_file(path)["rollout"])
        return cls.from_agents(agents, settings, turns, router, stop_condition)

    @classmethod
    def from_agents(
        cls,
        agents: Sequence[Agent],
        settings: SpeakingSettings | None = None,
        turns: TurnTaking | None = None,
        router: Router | None = None,
        stop_condition: StopCondition | None = None,
        accelerator: Accelerator | None = None,
        processing_class: Any = None,
    ) -> "Team":
        """
        A team of `agents`, whose models are loaded if they are paths.

        Args:
            agents (`Sequence[Agent]`): The members, in team order.
            settings ([`SpeakingSettings`], *optional*): How agents without settings of their own sample and read.
            turns ([`TurnTaking`], *optional*): How they take turns; one round if not given.
            router, stop_condition (*optional*): As in [`TeamTRTrainer`].
            accelerator ([`~accelerate.Accelerator`], *optional*): Of the processes that hold the models together.
            processing_class ([`~transformers.PreTrainedTokenizerBase`], *optional*): Tokenizer of the agents that have none.
        """
        check_names(agents)
        accelerator = accelerator if accelerator is not None else Accelerator()
        settings = settings if settings is not None else SpeakingSettings()
        rules = make_rules(turns or TurnTaking(), [agent.name for agent in agents], router, stop_condition)
        return cls(make_speakers(agents, settings, accelerator, processing_class), rules, accelerator)

    def collect(
        self,
        rows: Sequence[dict[str, Any]],
        said: Sequence[Sequence[Message]] | None = None,
    ) -> Rollouts:
        """
        Generate one rollout for each of `rows` with the current weights.

        Args:
            rows (`Sequence[dict]`): Rows of a dataset: `prompt`, and `agent_prompts` if there are private prompts.
            said (`Sequence[Sequence[Message]]`, *optional*): For each row the messages that its rollout begins with.
        """
        return self.turn_loop.run(self.turn_loop.begin(rows, said))

    def speak_through(self, backend: Backend):
        """From now on, let all members sample their messages through `backend`."""
        for speaker in self.speakers:
            speaker.backend = backend

    def close(self):
        """Release what the agents' backends hold outside this process, until an agent next speaks."""
        for backend in {id(speaker.backend): speaker.backend for speaker in self.speakers}.values():
            backend.close()

    def resample(self, drafts: Drafts) -> Rollouts:
        """Resample the rollouts of `drafts` with the current weights, keeping what may be kept."""
        return self.turn_loop.resample(drafts)

    def generate(
        self,
        prompts: Sequence[str | list[dict[str, str]]],
        agent_prompts: Sequence[dict[str, str]] | None = None,
        batch_size: int = 16,
        seed: int | None = None,
    ) -> list[Transcript]:
        """
        One conversation for each of `prompts`.

        Args:
            prompts (`Sequence[str]` or `Sequence[list[dict]]`): Tasks, in TRL's standard or conversational format.
            agent_prompts (`Sequence[dict[str, str]]`, *optional*): For each prompt what only the named agents read.
            batch_size (`int`, *optional*, defaults to `16`): Number of conversations generated together.
            seed (`int`, *optional*): Seed of all random numbers; the current random states are used if not given.

        Raises:
            `TypeError`: If `prompts` is one prompt.
            `ValueError`: If there are not as many `agent_prompts` as prompts, one names an unknown agent, or
                `batch_size` is below 1.
        """
        rows = self._rows(prompts, agent_prompts)
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        if seed is not None:
            set_seed(seed)
        transcripts: list[Transcript] = []
        with evaluating([speaker.policy.model for speaker in self.speakers]):
            for start in range(0, len(rows), batch_size):
                rollouts = self.collect(rows[start : start + batch_size])
                self._check_room(rollouts, start)
                transcripts += rollouts.transcripts
        return transcripts

    def _check_room(self, rollouts: Rollouts, start: int):
        """Raise unless every conversation has begun."""
        silent = [row for row in sorted(rollouts.full) if not rollouts.transcripts[row].messages]
        if silent:
            rooms = ", ".join(f"{speaker.name} {speaker.room}" for speaker in self.speakers)
            raise ValueError(
                f"Prompt {start + silent[0]} leaves the first speaker no room for a message. Tokens that the agents can "
                f"read, less `max_completion_length`: {rooms}. Shorten the prompt, or lower `max_completion_length`."
            )

    def _rows(self, prompts: Sequence, agent_prompts: Sequence[dict[str, str]] | None) -> list[dict[str, Any]]:
        if isinstance(prompts, str) or (prompts and isinstance(prompts[0], dict)):
            raise TypeError("`prompts` is one prompt, but must be a list of them. Write `team.generate([prompt])`.")
        private = [{}] * len(prompts) if agent_prompts is None else agent_prompts
        if len(private) != len(prompts):
            raise ValueError(
                f"There are {len(prompts)} prompts, but {len(private)} `agent_prompts`. Pass one for each."
            )
        unknown = sorted({name for each in private for name in each} - set(self.names))
        if unknown:
            raise ValueError(f"`agent_prompts` names {', '.join(unknown)}, but the team is {', '.join(self.names)}.")
        return [{"prompt": prompt, "agent_prompts": each} for prompt, each in zip(prompts, private, strict=True)]
