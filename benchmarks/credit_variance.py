"""
What credit by turn is worth: exact variances of the gradient per decoded token, on random teams that can be listed.

    python benchmarks/credit_variance.py            # 200 teams per family: some minutes
    python benchmarks/credit_variance.py --smoke    # seconds: says only that it runs

A team has tabular policies of random sharpness, four prompts and random returns, of 0 or 1 for every second team; a message
is one token. For each agent the variance of the gradient of one group of G rollouts is computed from all rollouts, in
groups by rollout and by turn (`credit="suffix"` and `"message"`), and split into that between the contexts in which the
rollouts of a group part and that within them. tests/maths/test_turn_groups.py compares these with all groups, one by one.

A stage is compared by the sum of the variances of its agents' gradients times the sum of the tokens that it decodes for
them: the variance at a budget of one token. Rollout-wise groups are fresh for each update ("full"), reuse what the last
update of the reversed order left ("reversed suffix"), or are verified after updates of KL 0.01 per message in random
directions ("speculative"), for which the mean number of decoded tokens is computed exactly too. Turn-wise groups have
fresh trunks, or trunks that are verified ("kept trunks"). `redone` is the share of a rollout's tokens that an update makes
speculative resampling decode again; `break-even` is the share at which it would cost what fresh turn-wise groups cost.

Prints the tables and one JSON object last.
"""

import argparse
import json
import statistics
from dataclasses import dataclass

from credit.estimators import Estimate, by_message, by_rollout, by_suffix
from credit.reuse import Tokens, count_tokens
from credit.trees import Family, Tree, at_random, by_text, draw_team, grow, round_robin
from machine import describe_machine


RADIUS = 0.01
FAMILIES = {
    "n=2": Family("one round, n=2", 2, 3, 4, round_robin(2, 1), 2),
    "n=3": Family("one round, n=3", 3, 3, 4, round_robin(3, 1), 3),
    "n=4": Family("one round, n=4", 4, 2, 4, round_robin(4, 1), 4),
    "n=2 r=2": Family("two rounds, n=2", 2, 2, 4, round_robin(2, 2), 4),
    "n=3 r=2": Family("two rounds, n=3", 3, 2, 4, round_robin(3, 2), 6),
    "random": Family("random router, n=2, three turns", 2, 2, 4, at_random(2, 3), 3),
    "text": Family("the text decides who is next and when to end, n=2", 2, 3, 4, by_text(2, 4, last=2), 4),
}
REUSING = ("n=2", "n=3", "n=4", "n=2 r=2", "n=3 r=2")  # rollouts of one length, whose reuse is computed
FORMS = {"suffix": by_suffix, "message": by_message}


@dataclass
class Stage:
    """
    What a team's stage costs, in groups of one size.

    Args:
        rollouts (`list[Estimate]`): Of each agent, by rollout.
        turns (`dict[str, list[Estimate]]`): By turn, in both forms.
        tokens ([`Tokens`], *optional*): Of rollout-wise groups that are reused, per rollout.
        length (`float`): Mean number of tokens of a rollout.
        group (`int`): G.
    """

    rollouts: list[Estimate]
    turns: dict[str, list[Estimate]]
    tokens: Tokens | None
    length: float
    group: int

    def ratios(self, form: str) -> dict[str, float]:
        """The cost by turn over that by rollout: below 1 the former is the better use of tokens."""
        own = self.turns[form]
        variance = sum(each.variance for each in own) / sum(each.variance for each in self.rollouts)
        fresh = sum(each.tokens for each in own)
        found = {"full": variance * fresh / sum(each.tokens for each in self.rollouts)}
        if self.tokens is not None:
            kept = fresh - len(own) * self.length + self.tokens.speculative  # in place of fresh trunks
            found["reversed suffix"] = variance * fresh / (self.group * self.tokens.reversed_suffix)
            found["speculative"] = variance * fresh / (self.group * self.tokens.speculative)
            found["speculative, kept trunks"] = variance * kept / (self.group * self.tokens.speculative)
        return found

    def break_even(self, form: str) -> float:
        """The share of a rollout's tokens that every update would have to make speculative resampling decode again."""
        agents = len(self.rollouts)
        return (self.ratios(form)["full"] * agents - 1) / (agents - 1)


def measure(tree: Tree, seed: int, group: int, reuses: bool) -> Stage:
    teams = [draw_team(tree, seed, agent) for agent in range(tree.family.agents)]
    return Stage(
        [by_rollout(team, group) for team in teams],
        {form: [estimate(team, group) for team in teams] for form, estimate in FORMS.items()},
        count_tokens(teams[0], RADIUS, seed) if reuses else None,
        float(teams[0].law @ teams[0].lengths.double()),
        group,
    )


def show_ratios(name: str, stages: list[Stage], numbers: dict[str, float]):
    for form in FORMS:
        ratios = [stage.ratios(form) for stage in stages]
        for against in ratios[0]:
            values = [each[against] for each in ratios]
            lower = sum(value < 1 for value in values) / len(values)
            median = statistics.median(values)
            print(f"{name:9} {stages[0].group:2}  {form:8} {against:25} {lower:6.1%}  {median:6.3f}")
            numbers[f"lower_{form}_{against}_{name}_G{stages[0].group}".replace(" ", "_").replace(",", "")] = lower


def show_shares(name: str, stages: list[Stage]):
    for agent in range(len(stages[0].rollouts)):
        row = []
        for own in (lambda s: s.rollouts, lambda s: s.turns["suffix"], lambda s: s.turns["message"]):
            found = [own(stage)[agent] for stage in stages]
            row += [
                statistics.median(each.between for each in found),
                statistics.median(each.within for each in found),
            ]
        print(f"{name:9} {agent:5}  " + "  ".join(f"{value:8.5f}" for value in row))


def show_reuse(name: str, stages: list[Stage]):
    redone = statistics.median(stage.tokens.redone for stage in stages if stage.tokens)
    even = {form: statistics.median(stage.break_even(form) for stage in stages) for form in FORMS}
    print(f"{name:9} {stages[0].group:2}  {redone:6.1%}  {even['suffix']:10.1%}  {even['message']:10.1%}")


def check_first(stages: list[Stage]) -> float:
    """Largest relative difference of the first speaker's cost by suffix from that by rollout."""
    pairs = [(stage.turns["suffix"][0].cost, stage.rollouts[0].cost) for stage in stages]
    return max(abs(one / other - 1) for one, other in pairs)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teams", type=int, default=200, help="Random teams per family.")
    parser.add_argument("--smoke", action="store_true", help="Two families with three teams each.")
    return parser


def main(options: argparse.Namespace):
    names = ("n=2", "random") if options.smoke else tuple(FAMILIES)
    count, numbers = 3 if options.smoke else options.teams, {"teams": 0.0}
    found = {}
    for name in names:
        tree = grow(FAMILIES[name])
        for group in (4, 8):
            found[name, group] = [measure(tree, seed, group, name in REUSING) for seed in range(count)]
    print(f"{count} teams per family. {describe_machine()}\n")
    for name in names:
        print(f"{name:9} {FAMILIES[name].name}")
    print("\nBy turn over by rollout, at equal tokens: share of teams where it is lower, and median ratio\n")
    print("family     G  credit   rollout-wise with         lower  ratio")
    for (name, _), stages in found.items():
        show_ratios(name, stages, numbers)
    print(
        "\nTokens of a rollout that are decoded again per update, and the share at which it would be a draw (medians)\n"
    )
    print("family     G  redone  even suffix  even message")
    for (name, _), stages in found.items():
        if name in REUSING:
            show_reuse(name, stages)
    print("\nVariance of a group's gradient between and within contexts (medians), G = 4\n")
    print("family    agent  rollout: between, within   suffix: between, within   message: between, within")
    for (name, group), stages in found.items():
        if group == 4:
            show_shares(name, stages)
    numbers["teams"] = count
    numbers["first_speaker"] = max(check_first(stages) for (name, _), stages in found.items() if name in REUSING)
    print(f"\nFirst speaker, suffix against rollout-wise: largest relative difference {numbers['first_speaker']:.1e}")
    print(json.dumps(numbers))


if __name__ == "__main__":
    main(make_parser().parse_args())
