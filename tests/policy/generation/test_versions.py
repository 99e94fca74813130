"""Each version has a name and a folder of its own."""

from trl_teamtr.policy.generation.versions import Versions


def test_versions_are_numbered_and_deleted_by_name(tmp_path):
    root = tmp_path / "sync"
    versions = Versions(str(root), "run", "x")
    for number in (1, 2, 3):
        versions.advance()
        assert versions.name == f"run-x-v{number}" and versions.folder == str(root / versions.name)
        (root / versions.name).mkdir(parents=True)
    assert versions.names_before() == ["run-x-v2", "run-x-v1"]
    (root / ".run-x-v2.tmp").mkdir()  # of an attempt that failed
    versions.delete(["run-x-v2", "run-x-v9"])
    assert sorted(path.name for path in root.iterdir()) == ["run-x-v1", "run-x-v3"]
    (root / "other-y-v1").mkdir()  # of another run
    versions.delete([versions.name, *versions.names_before()])
    assert [path.name for path in root.iterdir()] == ["other-y-v1"]
    (root / "other-y-v1").rmdir()
    versions.delete([])
    assert not root.exists()
