"""Tables of `versus_comlrl.py`."""

import statistics


AGENTS = ("first", "second")
PARTS = ("generation", "forward with gradient", "backward", "optimizer", "measuring the KL")
COUNTS = {
    "written": "messages written",
    "tokens_written": "tokens written",
    "read": "tokens read to write them",
    "read_by_first": "  of these by the first agent",
    "trained": "messages trained on",
    "tokens_trained": "tokens trained on",
    "positions": "positions in those passes",
    "kl_passes": "passes to measure the KL",
    "optimizer_steps": "updates",
}
RATIOS = {"full": "ratio", "stale": "ratio_stale", "full_radius": "ratio_with_radius"}


def print_table(answers: dict[str, list[dict]]):
    def row(name, get, scale=1.0, digits=1):
        means = [scale * statistics.mean(map(get, turns)) / len(AGENTS) for turns in answers.values()]
        print(f"  {name:<30}" + "".join(f"{mean:14.{digits}f}" for mean in means))

    print(f"{'ms per update':<32}" + "".join(f"{case:>14}" for case in answers))
    for part in PARTS:
        row(part, lambda turn, part=part: turn["parts"][part], 1e3)
    row("everything else", lambda turn: turn["seconds"] - sum(turn["parts"].values()), 1e3)
    row("all", lambda turn: turn["seconds"], 1e3)
    print("per update")
    for key, name in COUNTS.items():
        row(name, lambda turn, key=key: turn[key])
    print("per second")
    for key in ("optimizer_steps", "trained", "tokens_trained", "written", "tokens_written"):
        row(COUNTS[key], lambda turn, key=key: len(AGENTS) * turn[key] / turn["seconds"], digits=2)


def summarise(answers: dict[str, list[dict]]) -> dict:
    seconds = {case: [turn["seconds"] for turn in turns] for case, turns in answers.items()}
    result = {"updates_per_second": {}}
    for case, times in seconds.items():
        result["updates_per_second"][case] = round(len(AGENTS) / statistics.median(times), 3)
        if case in RATIOS:
            ratios = [theirs / ours for theirs, ours in zip(seconds["comlrl"], times, strict=True)]
            result[RATIOS[case]] = round(statistics.median(ratios), 3)
    return result
