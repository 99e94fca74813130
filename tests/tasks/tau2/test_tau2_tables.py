"""Tables that share entries, on a small database; no package is needed."""

from pydantic import BaseModel

from trl_teamtr.tasks.tau2.tables import LazyTable, changes, share


class Entry(BaseModel):
    name: str
    parts: list[int] = []


class Database(BaseModel):
    things: dict[str, Entry]
    others: dict[str, Entry]


def make_base() -> Database:
    return Database(
        things={key: Entry(name=key, parts=[1]) for key in "abc"}, others={key: Entry(name=key) for key in "xy"}
    )


def test_entry_is_copied_when_it_is_looked_up():
    base = make_base()
    table = LazyTable(base.things)
    assert table["a"] == base.things["a"] and table["a"] is not base.things["a"] and table["a"] is table["a"]
    assert dict.__getitem__(table, "b") is base.things["b"]
    table["a"].parts.append(2)
    assert base.things["a"].parts == [1] and table["a"].parts == [1, 2]
    assert list(table) == ["a", "b", "c"] and len(table) == 3 and "a" in table and "z" not in table


def test_writes_stay_in_one_database():
    base = make_base()
    one, other = share(base), share(base)
    one.things["a"].name = "changed"
    one.things["new"] = Entry(name="new")
    del one.others["x"]
    assert base == make_base() and changes(other, base) == {}
    assert set(changes(one, base)) == {("things", "a"), ("things", "new"), ("others", "x")}
    assert changes(one, base)["others", "x"] is None and "changed" in changes(one, base)["things", "a"]


def test_what_was_only_read_or_changed_back_is_no_change():
    base = make_base()
    one = share(base)
    one.things["a"].parts.append(2)
    assert changes(one, base)
    one.things["a"].parts.pop()
    assert one.things["b"].name == "b" and changes(one, base) == {}


def test_new_entry_that_replaces_a_shared_one():
    base = make_base()
    one = share(base)
    new = Entry(name="other")
    one.things["a"] = new
    assert one.things["a"] is one.things.get("a") is new and one.things.get("z") is None
    assert one.things.get("b") is not base.things["b"] and set(changes(one, base)) == {("things", "a")}


def test_equal_changes_are_equal_databases():
    base, databases = make_base(), []
    for order in ("ab", "ba"):
        database = share(base)
        for key in order:
            database.things[key].parts.append(7)
        databases.append(database)
    assert changes(databases[0], base) == changes(databases[1], base)
    assert databases[0].model_dump() == databases[1].model_dump() != base.model_dump()
