"""Registries: the named things of one kind that are installed, from this package and from others.

A thing gets in by one of three ways, and a look-up does not see which:

- the package registers its own when it is imported;
- another distribution names it in an entry point, `[project.entry-points."ubt.attacks"] plus = "my_package:Plus"`;
- a module that a study lists under `plugins:` registers it, `@ATTACKS.register`.

Entry points are loaded when their name is asked for, so one that cannot be imported harms only those who use it.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points, packages_distributions, version
from pathlib import Path
from typing import Generic, TypeVar

from ubt.common.errors import Problem, UserError
from ubt.common.paths import is_file

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """Where a registered thing comes from. That of a plug-in enters the keys of its stages."""

    distribution: str
    """Name of the installed distribution; empty for a module that belongs to none."""
    version: str
    """Of that distribution."""
    source: str
    """SHA-256 of the Python files that define it: of its package, or of its module if that stands alone."""

    def as_json(self) -> dict[str, str]:
        """Return it as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}" if self.distribution else "a plug-in module"


class Registry(Generic[Item]):
    """The things of one kind, by name."""

    def __init__(
        self, what: str, group: str, name_of: Callable[[Item], str], builtin: str, base: type[object] = object
    ) -> None:
        """Make an empty registry.

        Args:
            what: what one is called in messages, as `attack`.
            group: entry-point group by which other distributions add to it, as `ubt.attacks`.
            name_of: the name that an item is found by.
            builtin: module whose import registers our own.
            base: class that each item is an instance of, or derives from.
        """
        self.what = what
        self.group = group
        self._name_of = name_of
        self._builtin = builtin
        self._has_builtin = False
        self._base = base
        self._items: dict[str, Item] = {}
        self._modules: dict[str, str] = {}

    def register(self, item: Item) -> Item:
        """Add an item and return it, so that this also decorates a class.

        Raises:
            UserError: if it is no such thing, or another item of that name is there.
        """
        if wrong := self._wrong(item):
            raise UserError(Problem(self.what, wrong, getattr(item, "__name__", repr(item))))
        name = self._name_of(item)
        there = self._items.get(name)
        module = _module_of(item)
        if there is not None and there is not item and self._modules[name] != module:
            raise UserError(self._twice(name, self._modules[name], module))
        self._items[name] = item
        self._modules[name] = module
        return item

    def add(self, *items: Item) -> None:
        """Add several."""
        for item in items:
            self.register(item)

    def get(self, name: str, where: str = "") -> Item:
        """Return the item of a name; `where` is the setting that asks for it.

        Raises:
            UserError: if there is none, with the nearest names and what is installed; or if its plug-in cannot be
                imported.
        """
        self._load_builtin()
        point, *rivals = self._points().get(name, (None,))
        if point and rivals:
            raise UserError(self._twice(name, *(rival.value for rival in (point, *rivals) if rival)))
        if point and name not in self._items:
            self._items.setdefault(name, self._loaded(point))
            self._modules.setdefault(name, _module_of(self._items[name]))
        if point and self._is_own(self._modules[name]):
            raise UserError(self._twice(name, self._modules[name], point.value))
        if name not in self._items:
            raise UserError(self._unknown(name, where))
        return self._items[name]

    def __contains__(self, name: object) -> bool:
        self._load_builtin()
        return name in self._items or name in self._points()

    def __iter__(self) -> Iterator[Item]:
        """Yield all items by registration, those of entry points last.

        Raises:
            UserError: if a plug-in cannot be imported.
        """
        return iter([self.get(name) for name in self.names()])

    def usable(self) -> list[Item]:
        """Return the items that can be imported; of the others, say in the log what is wrong with them."""
        items = []
        for name in self.names():
            try:
                items.append(self.get(name))
            except UserError as error:
                logger.warning("left out: %s", error)
        return items

    def names(self) -> tuple[str, ...]:
        """Return the names there are; imports no plug-in."""
        self._load_builtin()
        return tuple(dict.fromkeys((*self._items, *self._points())))

    def loaded(self) -> tuple[Item, ...]:
        """Return the items that are imported already: the package's own, and plug-ins that were used."""
        self._load_builtin()
        return tuple(self._items.values())

    def origin(self, name: str) -> Origin | None:
        """Return where an item comes from; None for the package's own.

        Raises:
            UserError: as `get`.
        """
        self.get(name)
        module = self._modules[name]
        return None if self._is_own(module) else origin_of(module)

    def label(self, name: str) -> str:
        """Return what people call an item: its own `label`, or its name where it has none or is not installed here."""
        try:
            label = getattr(self.get(name), "label", "")
        except UserError:
            label = ""
        return label or name.replace("_", " ")

    def _load_builtin(self) -> None:
        if not self._has_builtin:
            import_module(self._builtin)
            self._has_builtin = True

    def _points(self) -> dict[str, tuple[EntryPoint, ...]]:
        return _entry_points(self.group)

    def _loaded(self, point: EntryPoint) -> Item:
        where = f"{self.what} `{point.name}`"
        try:
            item: Item = point.load()
        except (Exception, SystemExit) as error:
            raise UserError(_unimportable(where, point.value, error)) from error
        wrong = self._wrong(item)
        if not wrong and self._name_of(item) != point.name:
            wrong = f"the entry point is called `{point.name}`, and what it names is called `{self._name_of(item)}`"
        if wrong:
            raise UserError(Problem(where, wrong, point.value, "mend the plug-in, or uninstall it"))
        return item

    def _wrong(self, item: Item) -> str:
        """Return why an item cannot stand in this registry; empty if it can."""
        if not (issubclass(item, self._base) if isinstance(item, type) else isinstance(item, self._base)):
            return f"this is no {self.what}: it does not derive from `{self._base.__module__}.{self._base.__name__}`"
        try:
            named = isinstance(self._name_of(item), str)
        except Exception:  # noqa: BLE001 — a plug-in's item may raise anything
            named = False
        return "" if named else f"this {self.what} has no name"

    def _is_own(self, module: str) -> bool:
        return module.partition(".")[0] in {self._builtin.partition(".")[0], __name__.partition(".")[0]}

    def _twice(self, name: str, *places: str) -> Problem:
        message = f"two {self.what}s of this name are installed: in {' and in '.join(places)}"
        return Problem(f"{self.what} `{name}`", message, advice="uninstall or rename one of them")

    def _unknown(self, name: str, where: str) -> Problem:
        near = difflib.get_close_matches(name, self.names(), n=1)
        others = [f"{known} (from {_distribution_of(points[0])})" for known, points in self._points().items()]
        own = [known for known in self._items if known not in self._points()]
        meant = f"did you mean `{near[0]}`? " if near else ""
        advice = f"{meant}Of another distribution? Install it, or name its module under `plugins:`"
        return Problem(where or self.what, f"unknown {self.what}; allowed: {', '.join((*own, *others))}", name, advice)


def load_plugins(modules: Iterable[str]) -> None:
    """Import the modules that a study lists under `plugins:`, which register what they hold.

    A name that ends with `.py` is a file; any other is that of an importable module.

    Raises:
        UserError: for each that cannot be imported, with its cause.
    """
    problems = [problem for module in modules if (problem := _import_problem(module))]
    if problems:
        raise UserError(problems)


def _import_problem(module: str) -> Problem | None:
    try:
        if module.endswith(".py"):
            path = Path(module)
            if not is_file(path):
                raise FileNotFoundError(f"there is no file {path}")
            if str(path.parent) not in sys.path:
                sys.path.append(str(path.parent))
            found = import_module(path.stem).__file__
            if found is None or Path(found).resolve() != path.resolve():
                raise ImportError(f"another module is called {path.stem}, {found or 'built in'}: rename the file")
        else:
            import_module(module)
    except UserError as error:
        return error.problems[0]
    except (Exception, SystemExit) as error:  # noqa: BLE001 — a plug-in may raise anything on import
        return _unimportable("plugins", module, error)
    return None


def _unimportable(where: str, module: str, error: BaseException) -> Problem:
    cause = f"{type(error).__name__}: {error}"
    return Problem(where, f"cannot be imported from {module}: {cause}", advice="is it installed here, and complete?")


@cache
def _entry_points(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """Return those of a group by name: more than one where distributions contradict each other."""
    found = entry_points(group=group)
    return {name: tuple(found.select(name=name)) for name in found.names}


def _distribution_of(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _module_of(item: object) -> str:
    """Return the module that defines a class, or what another object says of itself by its `module`."""
    return str(item.__module__ if isinstance(item, type) else getattr(item, "module", type(item).__module__))


@cache
def origin_of(module: str) -> Origin:
    """Return where a module that is not this package's comes from."""
    names = packages_distributions().get(module.partition(".")[0], [])
    distribution = names[0] if names else ""
    return Origin(distribution, version(distribution) if distribution else "", _source_digest(module))


def _source_digest(module: str) -> str:
    """Return the SHA-256 over the Python files of a module's topmost package; of the module alone if it is in none."""
    top = sys.modules[module.partition(".")[0]]
    if not getattr(top, "__file__", None) and module in sys.modules:  # a namespace, which distributions share
        top = sys.modules[module]
    if not getattr(top, "__file__", None) or not Path(top.__file__ or "").is_file():
        advice = "put it into a file, and name that under `plugins:`"
        raise UserError(Problem("plugins", f"what `{module}` registers has no source file to know it by", None, advice))
    file = Path(top.__file__ or "")
    files = sorted(file.parent.rglob("*.py")) if top.__package__ else [file]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(file.parent).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
