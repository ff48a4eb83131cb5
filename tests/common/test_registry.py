"""What is installed, by name: the package's own, what entry points name, and what a study's `plugins:` register."""

import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from ubt.attacks import ATTACKS
from ubt.common import registry
from ubt.common.errors import UserError
from ubt.common.registry import Origin, Registry, load_plugins, origin_of

GROUP = "ubt.test-things"


class Thing:
    """What the registry of these tests holds, by its class's `name`."""

    name = "thing"
    label = ""


def thing(name, module="ubt.somewhere", **fields):
    """Return a class as if `module` defined it."""
    return type(name.title(), (Thing,), {"name": name, "__module__": module, **fields})


@pytest.fixture
def things(monkeypatch):
    """An empty registry without plug-ins; of its own are only those that a test registers."""
    monkeypatch.setattr(registry, "_entry_points", lambda _: {})
    return Registry("thing", GROUP, lambda item: item.name, "ubt.common.registry")


class Distribution:
    """What an entry point knows of where it comes from."""

    def __init__(self, name):
        self.name = name


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Return what installs plug-ins: modules with a source, named by entry points, of a distribution each."""
    points = {}
    monkeypatch.setattr(registry, "_entry_points", lambda group: points if group == GROUP else {})
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def install(module, source, name="", distribution="plus-things"):
        path = tmp_path / f"{module}.py"
        path.write_text(source)
        point = EntryPoint(name or module, f"{module}:Item", GROUP)
        vars(point).update(dist=Distribution(distribution))
        points[point.name] = (*points.get(point.name, ()), point)
        return path

    yield install
    for module in set(sys.modules) - before:
        del sys.modules[module]
    origin_of.cache_clear()


def source(name, extra=""):
    return f"class Item:\n    name = {name!r}\n    label = 'plus one'\n{extra}"


def problem(act):
    with pytest.raises(UserError) as caught:
        act()
    (found,) = caught.value.problems
    return found


# The package's own


def test_what_is_registered_is_found_by_its_name_in_the_order_of_registration(things):
    one, two = thing("one"), thing("two")
    things.add(one, two)
    assert things.get("one") is one
    assert things.names() == ("one", "two")
    assert list(things) == [one, two] == list(things.loaded())
    assert "one" in things
    assert "three" not in things
    assert 1 not in things


def test_registering_returns_the_item_so_that_it_decorates_a_class(things):
    @things.register
    class Mine(Thing):
        name = "mine"

    assert things.get("mine") is Mine


def test_registering_again_changes_nothing(things):
    one = thing("one")
    things.add(one, one)
    assert things.names() == ("one",)


def test_a_module_that_is_loaded_again_replaces_what_it_registered(things):
    first, again = thing("one", "mine"), thing("one", "mine")
    things.add(first, again)
    assert things.get("one") is again


def test_two_modules_cannot_register_one_name(things):
    things.register(thing("one", "theirs"))
    found = problem(lambda: things.register(thing("one", "mine")))
    assert found.where == "thing `one`"
    assert "in theirs and in mine" in found.message
    assert "rename one of them" in found.advice


def test_the_own_items_are_there_as_soon_as_somebody_asks(monkeypatch):
    asked = []
    monkeypatch.setattr(registry, "import_module", asked.append)
    lazy = Registry("thing", GROUP, lambda item: item.name, "ubt.things")
    assert not asked, "not when the registry is made: its module makes it"
    assert lazy.names() == ()
    assert asked == ["ubt.things"]


# Names that there are not


def test_an_unknown_name_is_answered_with_the_nearest_and_what_is_installed_and_from_where(things, installed):
    things.add(thing("one"), thing("two"))
    installed("three", source("three"))
    found = problem(lambda: things.get("thre", "victim.thing"))
    assert (found.where, found.given) == ("victim.thing", "thre")
    assert found.message == "unknown thing; allowed: one, two, three (from plus-things)"
    assert found.advice.startswith("did you mean `three`? ")
    assert "`plugins:`" in found.advice
    assert "three" not in sys.modules, "nothing was imported to say so"


def test_without_a_setting_and_a_near_name_the_kind_of_thing_is_said(things):
    things.add(thing("one"))
    found = problem(lambda: things.get("xyzzy"))
    assert found.where == "thing"
    assert "did you mean" not in found.advice


def test_a_label_is_what_people_call_it_or_its_name_also_where_it_is_not_installed(things, installed):
    things.add(thing("one", label="the one"), thing("no_label"))
    installed("plus", source("plus"))
    installed("broken", "1 / 0")
    called = {name: things.label(name) for name in ("one", "no_label", "plus", "broken", "gone_away")}
    assert called == {
        "one": "the one",
        "no_label": "no label",
        "plus": "plus one",
        "broken": "broken",
        "gone_away": "gone away",
    }


# Entry points


def test_what_an_entry_point_names_is_imported_when_it_is_asked_for(things, installed):
    things.add(thing("one"))
    installed("plus", source("plus"))
    assert things.names() == ("one", "plus"), "plug-ins come last"
    assert "plus" in things
    assert things.loaded() == (things.get("one"),)
    assert "plus" not in sys.modules
    item = things.get("plus")
    assert item is sys.modules["plus"].Item
    assert things.get("plus") is item
    assert list(things) == [things.get("one"), item] == list(things.loaded())


def test_a_plug_in_that_cannot_be_imported_is_one_message_with_its_cause(things, installed):
    installed("broken", "import no_such_package")
    for act in (lambda: things.get("broken"), lambda: things.origin("broken"), lambda: list(things)):
        found = problem(act)
        assert found.where == "thing `broken`"
        assert found.message == (
            "cannot be imported from broken:Item: ModuleNotFoundError: No module named 'no_such_package'"
        )
        assert "installed" in found.advice


def test_a_plug_in_that_names_nothing_is_as_broken(things, installed):
    installed("empty", "")
    assert "AttributeError" in problem(lambda: things.get("empty")).message


def test_a_broken_plug_in_harms_only_those_who_use_it(things, installed):
    one = thing("one")
    things.add(one)
    installed("broken", "raise RuntimeError('half installed')")
    installed("plus", source("plus"))
    assert things.names() == ("one", "broken", "plus")
    assert things.get("one") is one
    assert things.get("plus").label == "plus one"
    assert "broken (from plus-things)" in problem(lambda: things.get("brokn")).message


def test_an_entry_point_must_be_called_as_what_it_names(things, installed):
    installed("minus", source("plus"))
    found = problem(lambda: things.get("minus"))
    assert "the entry point is called `minus`, and what it names is called `plus`" in found.message


def test_a_plug_in_may_register_what_its_entry_point_names(things, installed, monkeypatch):
    monkeypatch.setitem(sys.modules, "shelf", SimpleNamespace(things=things))
    installed("plus", source("plus", "import shelf\nshelf.things.register(Item)\n"))
    assert things.get("plus") is sys.modules["plus"].Item
    assert things.names() == ("plus",)


def test_a_plug_in_cannot_take_the_name_of_one_of_the_packages_own(things, installed):
    things.add(thing("one"))
    installed("plus", source("one"), name="one")
    found = problem(lambda: things.get("one"))
    assert found.where == "thing `one`"
    assert "two things of this name are installed: in ubt.somewhere and in plus:Item" in found.message


def test_two_distributions_cannot_share_a_name(things, installed):
    installed("plus", source("one"), name="one")
    installed("minus", source("one"), name="one", distribution="minus-things")
    installed("two", source("two"))
    found = problem(lambda: things.get("one"))
    assert "two things of this name are installed: in plus:Item and in minus:Item" in found.message
    assert things.get("two").name == "two", "which harms no other"


def test_what_is_usable_leaves_out_what_is_not_and_says_so(things, installed, caplog):
    things.add(thing("one"))
    installed("broken", "import no_such_library")
    installed("plus", source("plus"))
    assert [item.name for item in things.usable()] == ["one", "plus"]
    assert "left out: thing `broken`: cannot be imported from broken:Item: ModuleNotFoundError" in caplog.text
    with pytest.raises(UserError, match="no_such_library"):
        list(things)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def Item(): pass", "this is no thing: it does not derive from `test_registry.Thing`"),
        ("class Item: name = 'mine'", "this is no thing: it does not derive from `test_registry.Thing`"),
        ("from test_registry import Thing\nclass Item(Thing): name = None", "this thing has no name"),
        ("raise SystemExit(3)", "cannot be imported from mine:Item: SystemExit: 3"),
    ],
)
def test_what_is_no_such_thing_is_a_mistake_of_its_plug_in(things, installed, monkeypatch, text, why):
    monkeypatch.setitem(sys.modules, "test_registry", sys.modules[__name__])
    monkeypatch.setattr(Thing, "__module__", "test_registry")
    monkeypatch.setattr(things, "_base", Thing)
    installed("mine", text)
    found = problem(lambda: things.get("mine"))
    assert found.where == "thing `mine`"
    assert found.message == why


def test_what_is_no_such_thing_cannot_be_registered_either():
    with pytest.raises(UserError, match="this is no attack: it does not derive from"):
        ATTACKS.register(Thing)
    assert "thing" not in ATTACKS


def test_a_name_of_our_own_in_another_package_is_not_a_plug_ins_to_take(monkeypatch, installed):
    drawn = Registry("thing", GROUP, lambda item: item.name, "analysis.figures")
    drawn.add(thing("one", "analysis.figures.front"))
    installed("plus", source("one"), name="one")
    assert "in analysis.figures.front and in plus:Item" in problem(lambda: drawn.get("one")).message


def test_what_has_no_file_has_no_origin_and_says_what_to_do(things):
    things.add(thing("one", "no_file_of_this_name"))
    sys.modules["no_file_of_this_name"] = SimpleNamespace()
    try:
        assert "put it into a file" in problem(lambda: things.origin("one")).advice
    finally:
        del sys.modules["no_file_of_this_name"]


def test_real_entry_points_are_looked_for_by_the_registrys_group():
    assert registry._entry_points(ATTACKS.group) is registry._entry_points(ATTACKS.group), "once a process"
    assert registry._entry_points("ubt.no-such-group") == {}


# Where things come from


def test_the_packages_own_have_no_origin(things):
    things.add(thing("one", "ubt.somewhere.deep"))
    assert things.origin("one") is None
    assert ATTACKS.origin("badnets") is None
    with pytest.raises(UserError, match="unknown attack"):
        ATTACKS.origin("no such")


def test_a_plug_in_of_no_distribution_has_the_digest_of_its_source_as_its_origin(things, installed):
    installed("plus", source("plus"))
    found = things.origin("plus")
    assert (found.distribution, found.version) == ("", "")
    assert len(found.source) == 64
    assert str(found) == "a plug-in module"
    assert found.as_json() == {"distribution": "", "version": "", "source": found.source}


def test_the_origin_changes_with_the_source_and_with_nothing_beside_it(things, installed):
    path = installed("plus", source("plus"))
    before = things.origin("plus")
    path.with_name("other.py").write_text("1")
    origin_of.cache_clear()  # as in another process
    assert things.origin("plus") == before
    path.write_text(source("plus", "# better\n"))
    origin_of.cache_clear()
    assert things.origin("plus").source != before.source


def package(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("changed", ["plus_package/attacks/plus.py", "plus_package/helpers.py"])
def test_of_a_package_every_file_counts(installed, tmp_path, changed):
    files = {"__init__.py": "", "helpers.py": "", "attacks/__init__.py": "", "attacks/plus.py": source("plus")}
    package(tmp_path / "plus_package", files)
    __import__("plus_package.attacks.plus")
    before = origin_of("plus_package.attacks.plus")
    (tmp_path / changed).write_text(source("plus", "# better\n"))
    origin_of.cache_clear()
    assert origin_of("plus_package.attacks.plus") != before


def test_the_origin_of_an_installed_plug_in_names_its_distribution_and_changes_with_its_version(
    things, installed, monkeypatch
):
    installed("plus", source("plus"))
    monkeypatch.setattr(registry, "packages_distributions", lambda: {"plus": ["plus-things"]})
    found = {}
    for version in ("1.0", "1.1"):
        monkeypatch.setattr(registry, "version", {"plus-things": version}.__getitem__)
        origin_of.cache_clear()
        found[version] = things.origin("plus")
    assert found["1.0"] == Origin("plus-things", "1.0", found["1.1"].source)
    assert found["1.0"] != found["1.1"]
    assert str(found["1.1"]) == "plus-things 1.1"


def test_an_item_that_is_no_class_says_by_its_module_where_it_comes_from(things):
    things.add(SimpleNamespace(name="own", module="ubt.stages"))
    assert things.origin("own") is None


# Modules that a study lists


@pytest.fixture
def plugin(things, monkeypatch, tmp_path):
    """Return what writes a module that registers a thing, in a folder of its own."""
    monkeypatch.setitem(sys.modules, "shelf", SimpleNamespace(things=things))
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(stem, name="mine", extra="", folder="plugins"):
        path = tmp_path / folder / f"{stem}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source(name, f"import shelf\nshelf.things.register(Item)\n{extra}"))
        return path

    yield write
    for module in set(sys.modules) - before:
        del sys.modules[module]


def test_a_python_file_is_imported_by_its_path_and_registers_what_it_holds(things, plugin):
    path = plugin("my_things")
    load_plugins([str(path), str(path)])
    assert things.names() == ("mine",)
    assert things.origin("mine").source
    assert things.get("mine").__module__ == "my_things"


def test_a_module_is_imported_by_its_name(things, plugin, monkeypatch):
    monkeypatch.syspath_prepend(str(plugin("my_module").parent))
    load_plugins(["my_module"])
    assert things.names() == ("mine",)


def test_a_python_file_may_import_its_neighbours(things, plugin):
    plugin("my_helper", "helped")
    load_plugins([str(plugin("my_things", extra="import my_helper\n"))])
    assert set(things.names()) == {"mine", "helped"}


@pytest.mark.parametrize("taken", ["json", "my_things"])
def test_a_python_file_that_is_called_as_another_module_is_refused(things, plugin, taken):
    if taken == "my_things":
        load_plugins([str(plugin(taken))])
    with pytest.raises(UserError, match=f"another module is called {taken}") as caught:
        load_plugins([str(plugin(taken, "other", folder="elsewhere"))])
    assert caught.value.problems[0].where == "plugins"
    assert "other" not in things.names()


def test_every_plug_in_that_cannot_be_imported_is_reported_with_its_cause(things, plugin, tmp_path):
    path = plugin("wrong", extra="raise ValueError('no licence')\n")
    with pytest.raises(UserError) as caught:
        load_plugins(["no_such_module", str(tmp_path / "gone.py"), str(path), str(plugin("right", "right"))])
    messages = [problem.message for problem in caught.value.problems]
    assert [problem.where for problem in caught.value.problems] == ["plugins"] * 3
    assert "no_such_module: ModuleNotFoundError" in messages[0]
    assert f"there is no file {tmp_path / 'gone.py'}" in messages[1]
    assert f"{path}: ValueError: no licence" in messages[2]
    assert "right" in things.names(), "the others are there"


def test_a_plug_in_that_registers_a_name_twice_is_refused(things, plugin):
    things.register(thing("mine", "theirs"))
    with pytest.raises(UserError, match="two things of this name are installed: in theirs and in my_things"):
        load_plugins([str(plugin("my_things"))])
