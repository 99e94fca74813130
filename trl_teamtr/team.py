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
from .policy.evaluating import evaluating
from .policy.making import make_speakers
from .policy.speaker import Speaker
from .rollouts.drafts import Drafts
from .rollouts.rollouts import Rollouts
from .rollouts.turn_loop import TurnLoop


class Team:
    """
    Agents that talk.

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
        turn_loop ([`TurnLoop`]): What lets them take turns.
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
        A saved team, which takes turns and samples as it was saved.

        Args:
            path (`str`): Directory that [`~TeamTRTrainer.save_model`] wrote.
            router (`Callable[[Transcript], str | None]`, *optional*): The router, if it was one of the user's own.
            stop_condition (`Callable[[Transcript], bool]`, *optional*): The stop condition, if there was one.
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
        A team of `agents`, whose models are loaded where they are paths.

        Args:
            agents (`Sequence[Agent]`): The members, in team order.
            settings ([`SpeakingSettings`], *optional*): How they sample and read, where they have no settings of their own.
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
        Let the team, with its present weights, write one rollout for each of `rows`.

        Args:
            rows (`Sequence[dict]`): Rows of a dataset: `prompt`, and `agent_prompts` if there are private prompts.
            said (`Sequence[Sequence[Message]]`, *optional*): For each row the messages that its rollout begins with.
        """
        return self.turn_loop.run(self.turn_loop.begin(rows, said))

    def resample(self, drafts: Drafts) -> Rollouts:
        """The rollouts of `drafts` as the team writes them with its present weights: what may stay stays."""
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
            batch_size (`int`, *optional*, defaults to `16`): Conversations that are written side by side.
            seed (`int`, *optional*): Seed of all draws. Without one they go on from where the random states are.

        Raises:
            `TypeError`: If `prompts` is one prompt.
            `ValueError`: If there are not as many `agent_prompts` as prompts, one names no agent, or `batch_size` is 0.
        """
        rows = self._rows(prompts, agent_prompts)
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        if seed is not None:
            set_seed(seed)
        transcripts: list[Transcript] = []
        with evaluating([speaker.policy.model for speaker in self.speakers]):
            for start in range(0, len(rows), batch_size):
                transcripts += self.collect(rows[start : start + batch_size]).transcripts
        return transcripts

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
