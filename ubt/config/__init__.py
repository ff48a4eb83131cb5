"""Typed configuration: frozen pydantic models, read from YAML, addressed by dotted paths. Loads no torch."""

from ubt.config.base import Config, is_as
from ubt.config.documents import parse_assignment, parse_text, read_json, read_yaml
from ubt.config.dotted_paths import difference, get_path, set_path
from ubt.config.load import validate

__all__ = [
    "Config",
    "difference",
    "get_path",
    "is_as",
    "parse_assignment",
    "parse_text",
    "read_json",
    "read_yaml",
    "set_path",
    "validate",
]
