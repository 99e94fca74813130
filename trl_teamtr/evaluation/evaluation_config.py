"""What is evaluated, how many times, and when an answer is right."""

from dataclasses import dataclass, field

from ..options.checking import check


PROTOCOLS = ("team", "single", "best_of_n", "majority", "debate", "debate_judge", "role_play")

# Short: agents with small contexts read them too
DEBATE_PROMPT = "Solve the task. Weigh what the others said, and end with your own answer."
JUDGE_PROMPT = "Read the debate, decide who is right, and give the final answer."


@dataclass
class EvaluationConfig:
    """
    Configuration of [`evaluate_protocols`]. How agents sample is set in [`TeamTRConfig`].

    Parameters:
        protocols (`list[str]`, *optional*, defaults to `["team"]`):
            What to evaluate: any of `"team"`, `"single"`, `"best_of_n"`, `"majority"`, `"debate"`, `"debate_judge"` and
            `"role_play"`.
        num_samples (`int`, *optional*, defaults to `1`):
            Number K of episodes per task.
        k (`list[int]`, *optional*, defaults to `[1]`):
            Values of k for pass@k, at most `num_samples`.
        threshold (`float`, *optional*):
            An answer is right if its reward (the weighted sum, if there are several) is at least this. Defaults to 1
            for a single reward; required if there are several.
        budget_samples (`int`, *optional*):
            Number n of samples of `"best_of_n"` and `"majority"`. By default chosen so that they sample about as many
            tokens per episode as the team.
        debate_rounds (`int`, *optional*, defaults to `2`):
            Number of rounds of a debate.
        single_prompt (`str`, *optional*):
            System prompt of the single model.
        debate_prompt, judge_prompt (`str`, *optional*):
            System prompts of the debaters and of the judge. Each has a default of one sentence.
        role_prompts (`list[str]`, *optional*):
            System prompts of the agents of a role-play. By default each agent's own, or the role of a planner, a
            solver or a checker where it has none.

    Raises:
        `ValueError`: If the value of a field is invalid.
    """

    protocols: list[str] = field(
        default_factory=lambda: ["team"], metadata={"help": f"What to evaluate: any of {', '.join(PROTOCOLS)}."}
    )
    num_samples: int = field(default=1, metadata={"help": "Episodes per task."})
    k: list[int] = field(
        default_factory=lambda: [1], metadata={"help": "Values of k for pass@k, at most `num_samples`."}
    )
    threshold: float | None = field(
        default=None, metadata={"help": "Smallest reward of a right answer; 1 for a single reward function."}
    )
    budget_samples: int | None = field(
        default=None,
        metadata={"help": "Samples of `best_of_n` and `majority`. By default from the team's token budget."},
    )
    debate_rounds: int = field(default=2, metadata={"help": "Rounds of a debate."})
    single_prompt: str | None = field(default=None, metadata={"help": "System prompt of the single model."})
    debate_prompt: str | None = field(default=DEBATE_PROMPT, metadata={"help": "System prompt of the debaters."})
    judge_prompt: str | None = field(default=JUDGE_PROMPT, metadata={"help": "System prompt of the judge."})
    role_prompts: list[str] | None = field(
        default=None, metadata={"help": "System prompts of a role-play. By default the agents' own."}
    )

    def __post_init__(self):
        for name in ("protocols", "k"):
            value = getattr(self, name)
            check(isinstance(value, list) and bool(value), f"`{name}` must be a list of at least one, got {value!r}.")
        unknown = [name for name in self.protocols if name not in PROTOCOLS]
        check(not unknown, f"`protocols` names {', '.join(map(repr, unknown))}; it may hold {', '.join(PROTOCOLS)}.")
        check(self.num_samples >= 1, f"`num_samples` must be at least 1, got {self.num_samples}.")
        wrong = [k for k in self.k if not 1 <= k <= self.num_samples]
        check(
            not wrong,
            f"pass@k with k={', '.join(map(str, wrong))} cannot be estimated from `num_samples={self.num_samples}` "
            "samples per task. Raise `num_samples`, or leave that k out; k is at least 1.",
        )
        check(
            self.budget_samples is None or self.budget_samples >= 1,
            f"`budget_samples` must be at least 1, or `None` for the team's token budget, got {self.budget_samples}.",
        )
        check(self.debate_rounds >= 1, f"`debate_rounds` must be at least 1, got {self.debate_rounds}.")
