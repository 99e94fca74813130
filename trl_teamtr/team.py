"""A team that can hold a conversation: speakers and their rules, without a trainer, a dataset, a reward or an optimizer."""

import copy
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from accelerate import Accelerator

from .agents.agent import Agent, check_names
from .agents.equipping import equip
from .agents.pushing import push_team
from .agents.saving import save_agents
from .agents.settings import SpeakingSettings
from .agents.team_file import check_same_team, describe_team, read_team, write_team_files
from .conversation.router import RoundRobinRouter, Router
from .conversation.rules import RolloutRules, StopCondition, TurnTaking, make_rules
from .conversation.transcript import Message, Transcript
from .policy.backend import Backend
from .policy.evaluating import evaluating
from .policy.making import make_speakers
from .policy.participant import Participant
from .policy.speaker import Speaker
from .rollouts.drafts import Drafts
from .rollouts.listening import StreamedMessage, listen_to
from .rollouts.rollouts import Rollouts
from .rollouts.talks import Piece, Talk, Wishes, draw_each, make_wishes, row_seed
from .rollouts.turn_loop import TurnLoop, share_backends


class Team:
    """
    Agents in conversation.

    Example:

    ```python
    >>> from trl_teamtr import Team

    >>> team = Team.from_pretrained("run")
    >>> print(team.chat("How many primes are there below 50?"))
    >>> for message in team.stream("And below 100?"):
    ...     print(message.agent, end=": ")
    ...     for piece in message:
    ...         print(piece, end="", flush=True)
    >>> talks = team.generate(["1 + 1 =", "1 + 2 ="], seed=0)
    ```

    Args:
        speakers (`Sequence[Participant]`): The members, in team order.
        rules ([`RolloutRules`]): Who speaks, and when a conversation ends.
        accelerator ([`~accelerate.Accelerator`]): Of the processes that hold the models together.
        settings ([`SpeakingSettings`], *optional*): How its members sample and read, to be saved with it.
        turns ([`TurnTaking`], *optional*): The options of `rules`, to be saved with it.
        conversational (`bool`, *optional*): Whether a question that is text is a user's turn, and not the beginning of a text.
            Defaults to whether all members have a chat template.

    Attributes:
        names (`tuple[str]`): Names of the members, in team order.
        turn_loop ([`TurnLoop`]): Lets them take turns.
    """

    def __init__(
        self,
        speakers: Sequence[Participant],
        rules: RolloutRules,
        accelerator: Accelerator,
        settings: SpeakingSettings | None = None,
        turns: TurnTaking | None = None,
        conversational: bool | None = None,
    ):
        self.accelerator = accelerator
        self.turns = turns if turns is not None else TurnTaking()
        self.conversational = conversational
        self.seat(speakers, rules, settings if settings is not None else SpeakingSettings())

    def seat(self, speakers: Sequence[Participant], rules: RolloutRules, settings: SpeakingSettings):
        """From now on, `speakers` are the members, in team order. `trl_teamtr.replacement` makes them."""
        self.speakers, self.rules, self.settings = list(speakers), rules, settings
        self.turn_loop = TurnLoop(self.speakers, rules, self.accelerator, settings.environments)
        self.names = self.turn_loop.names

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        router: Router | None = None,
        stop_condition: StopCondition | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        tools: Sequence[Callable] | None = None,
        environment_factory: Callable | None = None,
    ) -> "Team":
        """
        A saved team, in evaluation mode, which takes turns, samples and reads as it did when it was saved.

        Args:
            path (`str`): Directory that [`~TeamTRTrainer.save_model`] or [`~Team.save_pretrained`] wrote, or the id of its
                repository on the hub.
            router (`Callable[[Transcript], str | None]`, *optional*): In place of the saved one. Needed if the team has one that
                could not be saved: a lambda, an instance, a function of a script.
            stop_condition (`Callable[[Transcript], bool]`, *optional*): Likewise.
            trust_remote_code (`bool`, *optional*, defaults to `False`): Whether to run code that comes with the models, and, of
                a team from the hub, the router and the stop condition that it names, and to send its remote members their keys.
            revision (`str`, *optional*): Branch, tag or commit of the repository.
            tools, environment_factory (*optional*): In place of saved ones, as `router`; tools of the same names.

        Raises:
            `FileNotFoundError`: If there is no team in `path`, or the base of an adapter is not there.
            `ValueError`: If code of its user could not be saved and is not given, or a newer version saved it.
        """
        saved = read_team(path, revision, tools, trust_remote_code)
        for agent in saved.agents:
            agent.trust_remote_code = trust_remote_code
        trusted = trust_remote_code or os.path.isdir(path)
        code = saved.find_code(router, stop_condition, environment_factory, trusted)
        team = cls.from_agents(saved.agents, saved.settings, saved.turns, **code)
        team.conversational = saved.conversational
        for speaker in team.local_speakers:
            speaker.policy.model.eval()
        return team

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
        tools: Sequence[Callable] | None = None,
        environment_factory: Callable | None = None,
    ) -> "Team":
        """
        A team of `agents`, whose models are loaded if they are paths.

        Args:
            agents (`Sequence[Agent]`): The members, in team order.
            settings ([`SpeakingSettings`], *optional*): How agents without settings of their own sample and read.
            turns ([`TurnTaking`], *optional*): How they take turns; one round if not given.
            router, stop_condition, tools, environment_factory (*optional*): As in [`TeamTRTrainer`].
            accelerator ([`~accelerate.Accelerator`], *optional*): Of the processes that hold the models together.
            processing_class ([`~transformers.PreTrainedTokenizerBase`], *optional*): Tokenizer of the agents that have none.
        """
        check_names(agents)
        agents = [copy.copy(agent) for agent in agents]
        accelerator = accelerator if accelerator is not None else Accelerator()
        settings = dataclasses.replace(
            settings or SpeakingSettings(), environments=equip(agents, tools, environment_factory)
        )
        turns = turns if turns is not None else TurnTaking()
        rules = make_rules(turns, [agent.name for agent in agents], router, stop_condition)
        speakers = make_speakers(agents, settings, accelerator, processing_class)
        return cls(speakers, rules, accelerator, settings, turns)

    @property
    def local_speakers(self) -> list[Speaker]:
        """The members whose models are here."""
        return [speaker for speaker in self.speakers if isinstance(speaker, Speaker)]

    def collect(self, rows: Sequence[dict[str, Any]], said: Sequence[Sequence[Message]] | None = None) -> Rollouts:
        """
        Generate one rollout for each of `rows` with the current weights.

        Args:
            rows (`Sequence[dict]`): Rows of a dataset: `prompt`, and `agent_prompts` if there are private prompts.
            said (`Sequence[Sequence[Message]]`, *optional*): For each row the messages that its rollout begins with.
        """
        return self.turn_loop.run(self.turn_loop.begin(rows, said))

    def speak_through(self, backend: Backend):
        """From now on, let all members whose models are here sample their messages through `backend`."""
        for speaker in self.local_speakers:
            speaker.backend = backend

    def rest(self):
        """Let the agents' backends leave the device to the training, until an agent next speaks."""
        for together in share_backends(self.speakers):
            together[0].backend.rest()

    def close(self):
        """Release what the agents' backends hold outside this process, until an agent next speaks."""
        for together in share_backends(self.speakers):
            together[0].backend.close()

    def resample(self, drafts: Drafts) -> Rollouts:
        """Resample the rollouts of `drafts` with the current weights, keeping what may be kept."""
        return self.turn_loop.resample(drafts)

    # Conversations

    def chat(
        self,
        prompt: str | list[dict[str, str]] | dict[str, Any],
        agent_prompts: dict[str, str] | None = None,
        seed: int | None = None,
        greedy: bool = False,
    ) -> Transcript:
        """
        One conversation; `final_text` of it is the team's answer.

        Args:
            prompt (`str` or `list[dict]` or `dict`): A question, or the turns of a conversation that ends with one; or a row of a
                dataset, with its `prompt` and what environments are reset with.
            agent_prompts (`dict[str, str]`, *optional*): What only the named agents read.
            seed (`int`, *optional*): Seed of all that is sampled; the present random states are used if not given.
            greedy (`bool`, *optional*, defaults to `False`): Whether each agent writes the most probable id at each place.

        Raises:
            `ValueError`: If the first speaker has no room for the prompt, or `agent_prompts` names an unknown agent.
        """
        talk = self.begin(prompt, agent_prompts, make_wishes(seed, greedy))
        with self._evaluating():
            while not talk.ended:
                Talk.go_on([talk])
        return talk.result()

    def stream(
        self,
        prompt: str | list[dict[str, str]] | dict[str, Any],
        agent_prompts: dict[str, str] | None = None,
        seed: int | None = None,
        greedy: bool = False,
    ) -> Iterator[StreamedMessage]:
        """
        One conversation as it is generated. Yields each message when its author begins it; iterating over the message yields
        its text in pieces. Arguments are those of [`~Team.chat`], which gives the same answer. A caller who stops listening
        ends the conversation.
        """
        with self._evaluating():
            yield from listen_to(lambda listen: self.begin(prompt, agent_prompts, make_wishes(seed, greedy), listen))

    def begin(
        self,
        prompt: str | list[dict[str, str]] | dict[str, Any],
        agent_prompts: dict[str, str] | None = None,
        wishes: Wishes | None = None,
        listen: Callable[[Piece | Message], None] | None = None,
    ) -> Talk:
        """
        A conversation that is still to be held, turn by turn, beside others ([`~Talk.go_on`]).

        Args:
            prompt, agent_prompts: As in [`~Team.chat`].
            wishes ([`Wishes`], *optional*): How its messages are drawn.
            listen (`Callable[[Piece | Message], None]`, *optional*): As in [`Talk`].
        """
        row = dict(prompt) if isinstance(prompt, dict) else {"prompt": prompt}
        if isinstance(row["prompt"], str) and self.answers_conversations:
            row["prompt"] = [{"role": "user", "content": row["prompt"]}]
        wishes = wishes if wishes is not None else Wishes()
        rows = self._rows([row], None if agent_prompts is None else [agent_prompts])
        (transcript,) = self.turn_loop.begin(rows, seeds=None if wishes.seed is None else [row_seed(wishes.seed, 0)])
        if wishes.seed is not None:
            wishes = dataclasses.replace(wishes, seed=transcript.seed)
        talk = Talk(self.turn_loop, transcript, wishes, listen)
        self._check_first(talk)
        return talk

    @property
    def answers_conversations(self) -> bool:
        """Whether a question that is text is shown to the agents as a user's turn."""
        if self.conversational is not None:
            return self.conversational
        return all(speaker.takes_conversations for speaker in self.speakers)

    def generate(
        self,
        prompts: Sequence[str | list[dict[str, str]] | dict[str, Any]],
        agent_prompts: Sequence[dict[str, str]] | None = None,
        batch_size: int = 16,
        seed: int | None = None,
        greedy: bool = False,
    ) -> list[Transcript]:
        """
        One conversation for each of `prompts`.

        Args:
            prompts (`Sequence[str]` or `Sequence[list[dict]]` or `Sequence[dict]`): Tasks, in TRL's standard or conversational
                format, or rows of a dataset.
            agent_prompts (`Sequence[dict[str, str]]`, *optional*): For each prompt what only the named agents read.
            batch_size (`int`, *optional*, defaults to `16`): Number of conversations held together. Messages are generated in
                smaller batches if the device has no memory for more.
            seed (`int`, *optional*): Seed of all that is sampled; the current random states are used if not given. The
                conversation of the first prompt with a seed is that of [`~Team.chat`], and none depends on `batch_size`.
            greedy (`bool`, *optional*, defaults to `False`): Whether each agent writes the most probable id at each place.

        Raises:
            `TypeError`: If `prompts` is one prompt.
            `ValueError`: If there are not as many `agent_prompts` as prompts, one names an unknown agent, or
                `batch_size` is below 1.
        """
        rows = self._rows(prompts, agent_prompts)
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        seeds = None if seed is None else [row_seed(seed, row) for row in range(len(rows))]
        transcripts: list[Transcript] = []
        with self._evaluating():
            for start in range(0, len(rows), batch_size):
                batch = slice(start, start + batch_size)
                begun = self.turn_loop.begin(rows[batch], seeds=None if seeds is None else seeds[batch])
                wishes = [make_wishes(None if seeds is None else transcript.seed, greedy) for transcript in begun]
                rollouts = self.turn_loop.run(begun, draws=draw_each(begun, wishes))
                self._check_room(rollouts, start)
                transcripts += rollouts.transcripts
        return transcripts

    def member(self, name: str) -> "Team":
        """The member of that name alone, as a team of one that shares its weights. It speaks once."""
        (speaker,) = [speaker.by_itself() for speaker in self.speakers if speaker.name == name]
        return Team([speaker], RolloutRules(RoundRobinRouter(1), 1), self.accelerator, self.settings)

    def _evaluating(self):
        return evaluating([speaker.policy.model for speaker in self.local_speakers])

    def _check_first(self, talk: Talk):
        """Raise `ValueError` if the first speaker has no room for the prompt."""
        transcript = talk.transcript
        for speaker in self.speakers:
            if speaker.name == talk.next:
                length = len(speaker.renderer_for(transcript.prompt).opening(transcript, transcript.messages))
                if length > speaker.room:
                    raise ValueError(
                        f"The prompt takes {length} tokens in the view of {speaker.name}, which speaks first and has room for "
                        f"{speaker.room}: {speaker.max_view_length} less `max_completion_length`. Shorten the prompt."
                    )

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
        if isinstance(prompts, str) or (prompts and isinstance(prompts[0], dict) and "role" in prompts[0]):
            raise TypeError("`prompts` is one prompt, but must be a list of them. Write `team.generate([prompt])`.")
        private = [{}] * len(prompts) if agent_prompts is None else agent_prompts
        if len(private) != len(prompts):
            raise ValueError(
                f"There are {len(prompts)} prompts, but {len(private)} `agent_prompts`. Pass one for each."
            )
        unknown = sorted({name for each in private for name in each} - set(self.names))
        if unknown:
            raise ValueError(f"`agent_prompts` names {', '.join(unknown)}, but the team is {', '.join(self.names)}.")
        rows = [prompt if isinstance(prompt, dict) else {"prompt": prompt} for prompt in prompts]
        return [{"agent_prompts": each} | row for row, each in zip(rows, private, strict=True)]

    # Saving

    def describe(self) -> dict[str, Any]:
        """The content of the team's `team.json`."""
        models = {speaker.name: speaker.policy.model for speaker in self.local_speakers}
        agents = [speaker.agent for speaker in self.speakers]
        return describe_team(agents, self.turns, self.settings, self.rules, self.conversational, models)

    def save_pretrained(self, folder: str, merge: bool = False, self_contained: bool = False):
        """
        Save the team, for [`~Team.from_pretrained`]: `team.json`, and a directory for each agent; a team of one is in
        `folder` itself. One process calls this.

        Args:
            folder (`str`): Directory to save to.
            merge (`bool`, *optional*, defaults to `False`): Whether to merge adapters into the weights of their bases.
            self_contained (`bool`, *optional*, defaults to `False`): Whether to copy the bases of adapters into `folder`.

        Raises:
            `ValueError`: If `folder` holds a team of other agents.
        """
        agents = [speaker.agent for speaker in self.speakers]
        check_same_team(folder, agents)
        members = [(speaker.agent, speaker.policy.model) for speaker in self.local_speakers]
        save_agents(folder, members, len(agents), merge, self_contained)
        write_team_files(folder, self.describe())

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """
        Upload the team to the hub, as one repository ([`push_team`]). Returns its address.

        Args:
            repo_id (`str`): The id of the repository, which is made if there is none.
            kwargs: `private`, `token`, `revision`, `commit_message` and, as in [`~Team.save_pretrained`], `merge` and
                `self_contained`.
        """
        return push_team(self, repo_id, **kwargs)
