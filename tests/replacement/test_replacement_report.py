import json
import math

from trl_teamtr.replacement import ReplacementReport, SwapMeasure


MEASURE = SwapMeasure((0.7, 0.6), (0.1, 0.05, 0.15), 0.5, 1.25, 2.5, (0.02, 0.01), 0.1, 0.12)


def test_a_report_as_json_and_as_a_table():
    switches = {"system_prompt": True, "thoughts_off": False, "calls": True, "alignment": True}
    before = SwapMeasure(None, None, 0.25, 3.0, None, without_bound="the old member is behind an endpoint")
    report = ReplacementReport("y", "old", "new", switches, 10, 5, 1, before, MEASURE, 7, 100, 200, {"talking": 1.5})
    text = str(report)
    for part in (
        "y: old replaced by new",
        "unified in: system_prompt, calls, alignment",
        "+0.1000 [+0.0500, +0.1500]",
        "0.1000 (by turn 0.1200)",
        "1.2500 nats per message",
        "2.5000 bits per byte",
        "no bound                  the old member is behind an endpoint",
        "100 tokens decoded, 200 trained on in 7 steps, 1.5 s; 10 probes, 5 held out, 1 left out",
    ):
        assert part in text, part
    assert json.loads(report.to_json())["aligned"]["shock"] == [0.1, 0.05, 0.15]


def test_what_is_not_finite_is_null():
    measure = SwapMeasure(None, (0.1, -math.inf, math.inf), 1.0, math.nan, None)
    found = ReplacementReport("y", "old", "new", {}, unaligned=measure).as_dict()["unaligned"]
    assert found["shock"] == [0.1, None, None] and found["cross_entropy"] is None
