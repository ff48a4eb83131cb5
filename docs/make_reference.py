"""Write the reference pages that follow from the code, the study file, the records and the commands: `make docs`.

Study file and commands are read off the `ubt` command that `pyproject.toml` names: its JSON schema and its parameters.
The records' module is the only one that is named here.
"""

from __future__ import annotations

import importlib
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
TAGS = ("kind", "design")
"""Fields that say which fields the others beside them are."""
_KINDS = {"int": "number", "float": "number", "Path": "path"}

STUDY_HEAD = """\
# The study file

One YAML file is one study. Every field has a default but those marked *required*, fields that do not exist are refused,
and all mistakes of a file are reported together. Any field can be changed on the command line by its path:
`--set victim.attack.kind=sig`. `ubt schema` prints the same as JSON schema, for editors.

This page is generated from the fields' own descriptions (`make docs`).
"""
RECORD_HEAD = """\
# The record of a trial

Everything that is known of a trial is one JSON document, `RUN/records/TRIAL.json`, written whole after every stage and
epoch. It is the truth that tables, figures, report and MLflow are made from. This is version {version}; records of
earlier versions are migrated when they are read. Rates and AUROCs are fractions in [0, 1], times are UTC.

This page is generated from the fields' own descriptions (`make docs`).
"""
COMMANDS_HEAD = """\
# Commands

| exit status of every command | | what to do |
|---|---|---|
| 0 | all done | |
| 1 | some trials failed, or the report could not be written | look at the report; the failed trials are a result |
| 2 | a mistake in what was given, or no node that is fit for it | the message says what |
| 3 | a fault stopped it: the cluster, a disk, eight trials lost in a row | `--resume` once that is mended |
| 129, 130, 143 | ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM | `--resume` |

| variable | what it sets |
|---|---|
| `UBT_STORE` | where artifacts are kept if the study has no `store`: a folder, or a URL such as `s3://bucket/ubt` |
| `UBT_CACHE` | for downloads, decoded images, working folders of runs, artifacts without a store; else `~/.cache/ubt` |
| `RAY_API_SERVER_ADDRESS` | the job server of `ubt launch`, `status`, `logs` and `stop` without `--address` |

This page is generated from the commands' own help (`make docs`).
"""

Json = dict[str, Any]


def ubt_app() -> typer.Typer:
    """Return the application behind the `ubt` command."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    app: typer.Typer = importlib.import_module(scripts["ubt"].partition(":")[0]).app
    return app


def study_schema() -> Json:
    """Return the JSON schema of a study file, as `ubt schema` prints it."""
    schema: Json = json.loads(CliRunner().invoke(ubt_app(), ["schema"], catch_exceptions=False).stdout)
    return schema


def record_page() -> SchemaPage:
    """Return the reference of the record of a trial."""
    record = importlib.import_module("ubt.trials.record")
    schema: Json = record.TrialRecord.model_json_schema(mode="serialization")
    return SchemaPage(schema, RECORD_HEAD.format(version=record.RECORD_VERSION), "The whole record")


class SchemaPage:
    """The reference of a document, worked out from its schema: one section an object, one row a field."""

    def __init__(self, schema: Json, head: str = STUDY_HEAD, title: str = "The whole study") -> None:
        self._schema, self._head, self._title = schema, head, title
        self._definitions: Json = schema.get("$defs", {})
        self._anchors: dict[str, str] = {}
        self._sections: list[str] = []

    def text(self) -> str:
        """Return the page as Markdown."""
        self._section(self._title, "", self._schema, level=2, intro="")
        return self._head + "\n" + "\n".join(self._sections)

    def _section(self, title: str, path: str, node: Json, level: int, intro: str | None = None) -> None:
        described = _paragraphs(node.get("description", "")) if intro is None else intro
        at = len(self._sections)
        self._sections.append("")  # filled in when the sections below it have their anchors
        below: list[tuple[str, Json]] = []
        rows = []
        for name, field in node.get("properties", {}).items():
            if name in TAGS and "const" in self._resolved(field):
                continue
            where = f"{path}.{name}" if path else name
            children = self._objects_in(field, where, below)
            default = self._default(field, required=name in node.get("required", ()), nested=bool(children))
            rows.append((f"`{name}`", self._type(field), default, _cell(self._description(field))))
        for where, child in below:
            self._object(where, child, min(level + 1, 4))
        linked = [(name, self._linked(kind), default, text) for name, kind, default, text in rows]
        self._sections[at] = _heading(level, title) + described + _table(("field", "type", "default", ""), linked)

    def _object(self, where: str, reference: Json, level: int) -> None:
        name = reference["$ref"].rsplit("/", 1)[-1]
        node = self._definitions[name]
        tag = next((t for t in TAGS if "const" in node.get("properties", {}).get(t, {})), None)
        title = f"`{where}`" + (f", {tag} `{node['properties'][tag]['const']}`" if tag else "")
        self._anchors[name] = slug(title)
        self._section(title, where, node, level)

    def _objects_in(self, field: Json, where: str, below: list[tuple[str, Json]]) -> bool:
        """Put the objects that a field may be into `below`, each once on the page; tell whether there are any."""
        found = list(_references(field))
        objects = [r for r in found if "properties" in self._definitions[r["$ref"].rsplit("/", 1)[-1]]]
        for reference in objects:
            name = reference["$ref"].rsplit("/", 1)[-1]
            if name not in self._anchors:
                self._anchors[name] = ""
                below.append((where, reference))
        return bool(objects)

    def _resolved(self, node: Json) -> Json:
        if "$ref" in node:
            return {
                **self._definitions[node["$ref"].rsplit("/", 1)[-1]],
                **{k: v for k, v in node.items() if k != "$ref"},
            }
        return node

    def _description(self, field: Json) -> str:
        return str(field.get("description") or self._resolved(field).get("description", ""))

    def _type(self, field: Json) -> str:  # noqa: PLR0911 — one line for each form that a schema takes
        if "$ref" in field:
            name = field["$ref"].rsplit("/", 1)[-1]
            target = self._definitions[name]
            return f"@{name}@" if "properties" in target else (self._type(target) if target else "any value")
        if "const" in field:
            return f"`{field['const']}`"
        if "enum" in field:
            return ", ".join(f"`{value}`" for value in field["enum"])
        for union in ("oneOf", "anyOf"):
            if union in field:
                tags = {tag for reference in _references(field) for tag in self._tag(reference)}
                *others, last = dict.fromkeys(
                    "the bare name" if tags & set(option.get("enum", ())) else self._type(option)
                    for option in field[union]
                )
                return f"{', '.join(others)} or {last}" if others else last
        kind = field.get("type")
        if kind == "array":
            return f"list of {self._type(field.get('items', {}))}"
        if kind == "object":
            values = field.get("additionalProperties")
            return f"mapping of names to {self._type(values)}" if isinstance(values, dict) else "mapping"
        return f"{kind or 'any value'}{_bounds(field)}"

    def _tag(self, reference: Json) -> list[str]:
        fields = self._definitions[reference["$ref"].rsplit("/", 1)[-1]].get("properties", {})
        return [fields[tag]["const"] for tag in TAGS if "const" in fields.get(tag, {})]

    def _default(self, field: Json, required: bool, nested: bool) -> str:
        if required or "default" not in field:
            return "*required*" if required else ""
        default = field["default"]
        if isinstance(default, dict) and nested:
            return next((f"`{t}: {default[t]}`" for t in TAGS if t in default), "see below")
        return f"`{json.dumps(default, ensure_ascii=False)}`"

    def _linked(self, kind: str) -> str:
        for name, anchor in self._anchors.items():
            shown = "".join(f"`{tag}`" for tag in self._tag({"$ref": name})) or "object"
            kind = kind.replace(f"@{name}@", f"[{shown}](#{anchor})")
        return kind


def commands_text() -> str:
    """Return the reference of all commands as Markdown."""
    return COMMANDS_HEAD + "\n" + "\n".join(_commands(typer.main.get_command(ubt_app()), "ubt"))


def _commands(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield _heading(2, f"{path} {name}") + _paragraphs(command.help or "")
            yield from _commands(command, f"{path} {name}")
            continue
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
        usage = " ".join(
            [f"{path} {name}", *(f"{p.name.upper()}" for p in arguments), *(["[OPTIONS]"] if options else [])]
        )
        text = _heading(2 if path == "ubt" else 3, f"{path} {name}") + _paragraphs(command.help or "")
        text += f"```text\n{usage}\n```\n\n"
        rows = [
            (f"`{p.name.upper()}`", _parameter_type(p), _parameter_default(p), _cell(p.help or "")) for p in arguments
        ]
        rows += [
            (f"`{', '.join(p.opts)}`", _parameter_type(p), _parameter_default(p), _cell(p.help or "")) for p in options
        ]
        yield text + (_table(("argument", "type", "default", ""), rows) if rows else "")


def _parameter_type(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return "switch"
    annotation = parameter.type_descriptor.annotation
    kind = f"`{parameter.metavar}`" if parameter.metavar else _KINDS.get(getattr(annotation, "__name__", ""), "text")
    least = "" if parameter.min is None else f" ≥ {parameter.min}"
    return f"{kind}{least}{', may be repeated' if parameter.multiple else ''}"


def _parameter_default(parameter: Any) -> str:
    if parameter.required:
        return "*required*"
    default = parameter.default
    return "" if default in (None, False, 0) or callable(default) else f"`{default}`"


def _references(field: Any) -> Iterator[Json]:
    if isinstance(field, dict):
        if "$ref" in field:
            yield field
            return
        for name in ("oneOf", "anyOf", "items", "additionalProperties"):
            yield from _references(field.get(name))
    elif isinstance(field, list):
        for part in field:
            yield from _references(part)


def _bounds(field: Json) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[name]}" for name, sign in signs.items() if name in field]
    return f", {', '.join(bounds)}" if bounds else ""


def _heading(level: int, title: str) -> str:
    return f"{'#' * level} {title}\n\n"


def _paragraphs(text: str) -> str:
    return f"{text.strip()}\n\n" if text.strip() else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n" if rows else "It has no settings.\n"


def slug(title: str) -> str:
    """Return the anchor that Markdown's table of contents gives a heading."""
    plain = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return "-".join(plain.split())


def pages() -> dict[Path, str]:
    """Return file → text of every generated page."""
    return {
        REFERENCE / "study.md": SchemaPage(study_schema()).text(),
        REFERENCE / "record.md": record_page().text(),
        REFERENCE / "commands.md": commands_text(),
    }


if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
