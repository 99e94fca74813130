"""AutoLogi: its columns, answers by hand, and hostile checkers, which score 0 and are logged."""

import json
import logging

import pytest

from trl_teamtr.tasks import autologi
from trl_teamtr.tasks.sandbox import IsolationError, Limits, sandbox


# As published: the format of an arrangement, and the constraints, each with the code that checks it
CODE = {
    "Inputs_Check_code": (
        "def inputs_check(inputs):\n"
        "    if not isinstance(inputs, dict) or set(inputs) != {'Mon', 'Tue', 'Wed'}:\n"
        "        return False\n"
        "    return sorted(inputs.values()) == ['Ann', 'Bo', 'Cy']\n"
    ),
    "Constraint_List_code": (
        "def constraint_1(inputs):\n    return inputs['Mon'] != 'Ann'\n\n"
        "def constraint_2(inputs):\n    days = list(inputs)\n    return inputs['Tue'] == 'Ann' or inputs['Wed'] == 'Bo'\n\n"
        "constraint_list = [constraint_1, constraint_2]\n"
    ),
    "Traverse_code": "",
    "Inputs_Example": "{'Mon': 'Ann', 'Tue': 'Bo', 'Wed': 'Cy'}",
}
ROW = {"idx": 1, "prompt": "Arrange.", "code": CODE, "lang": "en", "gen": []}
CHECKS = CODE["Inputs_Check_code"] + "\n" + CODE["Constraint_List_code"]
RIGHT, OTHER_RIGHT = "{'Mon': 'Bo', 'Tue': 'Ann', 'Wed': 'Cy'}", "{'Mon': 'Cy', 'Tue': 'Ann', 'Wed': 'Bo'}"
WRONG = "{'Mon': 'Ann', 'Tue': 'Bo', 'Wed': 'Cy'}"

ANSWERS = [
    (f"```python\n{RIGHT}\n```", 1.0),
    (f"```json\n{RIGHT}\n```", 1.0),
    (f"```\n{RIGHT}\n```", 1.0),
    (f"```python\ninputs = {RIGHT}\n```", 1.0),
    (f"```python\n{OTHER_RIGHT}\n```", 1.0),  # any arrangement that satisfies all
    (f"```python\n{WRONG}\n```", 0.0),
    (f"```python\n{WRONG}\n``` No:\n```python\n{RIGHT}\n```", 1.0),  # twice: the last one counts
    (f"```python\n{RIGHT}\n``` No:\n```python\n{WRONG}\n```", 0.0),
    (RIGHT, 1.0),
    (f"So {RIGHT} it is.", 1.0),
    (f"{WRONG}, no: {RIGHT}", 1.0),
    (f"{RIGHT}, no: {WRONG}", 0.0),
    (RIGHT.replace("'", '"'), 1.0),
    (f"<think>{WRONG}</think>{RIGHT}", 1.0),
    (f"<think>{RIGHT}</think>", 0.0),  # in thoughts only
    (f"<think>{RIGHT}", 0.0),
    ("{'Mon': 'Bo', 'Tue': 'Ann'}", 0.0),
    ("{'Mon': 'Bo', 'Tue': 'Ann', 'Wed': 'Ann'}", 0.0),
    ("{'Mon': 'Bo', 'Tue': 'Ann', 'Wed': 'Dee'}", 0.0),
    ("{'mon': 'Bo', 'tue': 'Ann', 'wed': 'Cy'}", 0.0),
    ("{'Mon': 'Bo', 'Tue': 'Ann', 'Wed': 'Cy', 'Thu': 'Ann'}", 0.0),
    ("{'Mon': 'Cy', 'Tue': 'Bo', 'Wed': 'Ann'}", 0.0),
    ("['Bo', 'Ann', 'Cy']", 0.0),
    ("{'Mon': ['Bo'], 'Tue': ['Ann'], 'Wed': ['Cy']}", 0.0),
    ("{'Mon': Bo, 'Tue': Ann, 'Wed': Cy}", 0.0),
    ("{'Mon': 'Bo', 'Tue': 'Ann', 'Wed': 'Cy'", 0.0),  # cut off
    ("```python\n{'Mon': 'Bo',  // the first\n'Tue': 'Ann', 'Wed': 'Cy'}\n```", 1.0),
    ("```python\n{'Mon': 'Bo',\n 'Tue': 'Ann',\n 'Wed': 'Cy',\n}\n```", 1.0),
    ("```python\n__import__('os').getcwd()\n```", 0.0),  # read, never executed
    ("Monday Bo, Tuesday Ann, Wednesday Cy", 0.0),
    ("", 0.0),
    ("{}", 0.0),
    ("{" * 3000, 0.0),
]


@pytest.mark.parametrize("code", [CODE, json.dumps(CODE)])
@pytest.mark.parametrize("clone", [True, False])
def test_columns(tmp_path, code, clone):
    (tmp_path / "testing-data").mkdir()
    file = tmp_path / "testing-data" / "AutoLogi_en.jsonl"
    file.write_text(json.dumps(ROW | {"code": code}) + "\n")
    (row,) = autologi.make_dataset(str(tmp_path if clone else file))
    assert row == {"prompt": [{"role": "user", "content": "Arrange."}], "checks": CHECKS}


def test_what_is_missing_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW | {"code": {"Inputs_Check_code": ""}}))
    with pytest.raises(ValueError, match="`code` of row 0 lacks Constraint_List_code; it has Inputs_Check_code"):
        autologi.make_dataset(str(tmp_path / "rows.jsonl"))
    with pytest.raises(ValueError, match="not on the hub. Clone https://github.com/8188zq/AutoLogi"):
        autologi.make_dataset()


def test_answers():
    texts, scores = zip(*ANSWERS, strict=True)
    found = autologi.reward([[{"role": "assistant", "content": text}] for text in texts], [CHECKS] * len(texts))
    wrong = [(text, score) for text, score, own in zip(texts, found, scores, strict=True) if score != own]
    assert wrong == [] and len(ANSWERS) >= 30


def test_sets_and_tuples_are_arrangements():
    checks = "def inputs_check(inputs):\n    return inputs == {'a': {1, 2}, 'b': (3,)}\nconstraint_list = []"
    assert autologi.reward(["{'a': {2, 1}, 'b': (3,)}"], [checks]) == [1.0]


@pytest.mark.parametrize(
    "attack, fault",
    [
        (
            "import os\nfor i in range(100):\n    if os.fork() == 0:\n        os._exit(0)",
            "Resource temporarily unavailable",
        ),
        ("while True: pass", "did not end within"),
        ("block = bytearray(4 << 30)", "MemoryError"),
        ("open('/tmp/written', 'w').write('x')", "Too many open files"),
        ("import socket\nsocket.socket()", "Too many open files"),
        ("raise SystemExit", "SystemExit"),
    ],
)
def test_hostile_checkers_score_0_and_are_logged(attack, fault, caplog):
    checks = f"def inputs_check(inputs):\n    return True\nconstraint_list = []\n{attack}"
    with caplog.at_level(logging.WARNING):
        assert autologi.check(RIGHT, checks, Limits(seconds=1)) == 0.0
    assert fault in caplog.text and "scored 0" in caplog.text


def test_without_isolation_nothing_is_scored(monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    with pytest.raises(IsolationError):
        autologi.reward([RIGHT], [CHECKS])


def test_equal_arrangements_are_one_vote():
    assert autologi.read_answer(RIGHT, {}) == autologi.read_answer(f"```\n{RIGHT} \n```", {}) != ""
    assert autologi.read_answer("no", {}) == ""
