import pytest

from trl_teamtr.cli.main import main


def test_the_path_of_the_page_is_printed(tmp_path, capsys):
    (tmp_path / "log.jsonl").write_text('{"reward": 0.5, "step": 1}\n')
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n" and (tmp_path / "report.html").is_file()
    with pytest.raises(SystemExit, match="error: There is no log.jsonl in"):
        main(["report", str(tmp_path / "nothing")])


def test_another_run_beside_it(tmp_path, capsys):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.jsonl").write_text('{"eval_reward": 0.5, "step": 1}\n')
    assert main(["report", str(tmp_path / "one"), "--beside", str(tmp_path / "other")]) == 0
    assert "other: no replacement" in (tmp_path / "one" / "report.html").read_text()
    with pytest.raises(SystemExit, match="the run to show beside"):
        main(["report", str(tmp_path / "one"), "--beside", str(tmp_path / "nothing")])
