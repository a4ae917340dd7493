"""YAML files read into dataclasses, strictly: a wrong field is named with its line.

    recipe = read_settings(Path("recipe.yaml"), Recipe)
    check_types(Config, json.loads(text))                   # the same strictness for an object that was read otherwise

Types that are understood: str, int, float, bool, Path (relative to the file), None, tuples, lists, dicts with text
keys, unions of those, and dataclasses inside dataclasses.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from kimi_audio.errors import ConfigError

T = TypeVar("T")

WORDS = {str: "a text", Path: "a path", bool: "true or false", int: "a whole number", float: "a number"}
"""What the simple types are called in messages."""


def read_node(path: Path) -> yaml.MappingNode:
    """The mapping that a YAML file holds, with the line of every value."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigError(f"{path}: the file cannot be read ({error.strerror}).") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not valid YAML ({error.problem}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML.") from error
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}: a mapping of fields is expected.")
    return node


def read_settings(path: Path, kind: type[T]) -> T:
    """The dataclass `kind` from a YAML file. Raises ConfigError naming file, line and field."""
    return Reader(path).dataclass(read_node(path), kind, "")


def check_types(kind: Any, content: Mapping[str, Any]) -> None:
    """Compare numbers, texts and truth values with the fields of a dataclass; names that it lacks may hold anything.

    Raises ConfigError for the first that is of another type.
    """
    for name, hint in typing.get_type_hints(kind).items():
        is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        kinds = typing.get_args(hint) if is_union else (hint,)
        simple = [kind for kind in kinds if kind in WORDS]
        if name in content and simple and not any(_is_a(content[name], kind) for kind in kinds):
            raise ConfigError(f"field {name} is {content[name]!r}; {WORDS[simple[0]]} is expected")


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of a type; a truth value is no number here, and a whole number is a number."""
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


class Reader:
    """Converts YAML nodes of one file; `name` is the path of fields to the node, for messages."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fail(self, node: yaml.Node, problem: str) -> typing.NoReturn:
        raise ConfigError(f"{self.path}:{node.start_mark.line + 1}: {problem}")

    def fields(self, node: yaml.Node, name: str) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, f"{name or 'the file'} must be a mapping of fields.")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.fail(key, f"a field name of {name or 'the file'} must be a text.")
            if key.value in found:
                self.fail(key, f"field {_join(name, key.value)} is given twice.")
            found[key.value] = value
        return found

    def dataclass(self, node: yaml.Node, kind: type[T], name: str) -> T:
        given, hints = self.fields(node, name), typing.get_type_hints(kind)
        known = {field.name: field for field in dataclasses.fields(typing.cast(Any, kind)) if field.init}
        for key, value in given.items():
            if key not in known:
                self.fail(value, f"field {_join(name, key)} is unknown; accepted are {', '.join(known)}.")
        for field in known.values():
            optional = (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
            if field.name not in given and not optional:
                self.fail(node, f"field {_join(name, field.name)} is missing.")
        values = {key: self.value(value, hints[key], _join(name, key)) for key, value in given.items()}
        try:
            return kind(**values)
        except ConfigError as error:
            self.fail(node, f"{name}: {error}" if name else str(error))

    def value(self, node: yaml.Node, kind: Any, name: str) -> Any:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin in (typing.Union, types.UnionType):
            return self._union(node, arguments, name)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            return self.dataclass(node, kind, name)
        if origin is typing.Literal:
            if isinstance(node, yaml.ScalarNode) and node.value in arguments:
                return node.value
            self.fail(node, f"field {name} is {_shown(node)}; accepted are {', '.join(map(str, arguments))}.")
        if origin is dict:
            entries = self.fields(node, name).items()
            return {key: self.value(value, arguments[1], _join(name, key)) for key, value in entries}
        if origin in (list, tuple):
            return self._sequence(node, origin, arguments, name)
        return self._scalar(node, kind, name)

    def _union(self, node: yaml.Node, kinds: tuple[Any, ...], name: str) -> Any:
        if types.NoneType in kinds and node.tag.endswith(":null"):
            return None
        others = [kind for kind in kinds if kind is not types.NoneType]
        assert len(others) == 1, "unions are of one type and None"
        return self.value(node, others[0], name)

    def _sequence(self, node: yaml.Node, origin: type, kinds: tuple[Any, ...], name: str) -> Any:
        if not isinstance(node, yaml.SequenceNode):
            self.fail(node, f"field {name} is {_shown(node)}; a list is expected.")
        fixed = origin is tuple and Ellipsis not in kinds
        if fixed and len(node.value) != len(kinds):
            self.fail(node, f"field {name} has {len(node.value)} values; {len(kinds)} are expected.")
        each = kinds if fixed else (kinds[0],) * len(node.value)
        parts = zip(node.value, each, strict=True)
        return origin(self.value(part, kind, f"{name}[{i}]") for i, (part, kind) in enumerate(parts))

    def _scalar(self, node: yaml.Node, kind: Any, name: str) -> Any:
        if isinstance(node, yaml.ScalarNode):
            tag, text = node.tag.rsplit(":", 1)[-1], node.value
            if kind is str and tag != "null":
                return text
            if kind is Path and tag != "null":
                return self.path.parent / text
            if kind is bool and tag == "bool":
                return yaml.safe_load(text)
            if kind in (int, float) and tag in ("int", "float", "str"):
                try:  # YAML 1.1 takes 2e-4 for a text
                    return kind(text)
                except ValueError:
                    pass
        self.fail(node, f"field {name} is {_shown(node)}; {WORDS[kind]} is expected.")


def _join(name: str, field: str) -> str:
    return f"{name}.{field}" if name else field


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value)
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
