"""Reading a node's configuration: a TOML file, and environment variables over it.

A configuration is checked as a whole before anything starts, and every mistake is told at once, with its key
and what would be right.

The variable of a key is ``DATASYNC_`` and the key in capitals, with ``__`` between a section and its key:
``DATASYNC_DATABASE``, ``DATASYNC_HTTP__PORT``. Text is written bare, everything else as JSON (a list as a whole:
``DATASYNC_EDGES='[{"name": "acme/cbd", "url": "mqtts://cbd"}]'``). A variable that names no key is an error, as an
unknown key in the file is.
"""

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from datasync.domain.errors import ConfigError
from datasync.nodes.config import CloudConfig, DeviceConfig, EdgeConfig, NodeConfig, Section
from datasync.security.files import read_file
from datasync.security.node_keys import SECRET_VARIABLES

ENVIRONMENT_PREFIX = "DATASYNC_"
OTHER_VARIABLES = frozenset(
    {f"DATASYNC_{name}" for name in ("CA", "CERT", "ENROLMENT_CODE", "PEER", "TOKEN", "URL")} | SECRET_VARIABLES
)
"""Variables of the command line, and of secrets; they name no key."""

TEST_PREFIX = "DATASYNC_TESTS_"
"""The beginning of the tests' variables, which name no key either."""

Config = TypeVar("Config", bound=NodeConfig)


def load(kind: type[Config], path: Path, environment: Mapping[str, str]) -> Config:
    """Return the configuration in a TOML file with the environment's overrides.

    Raises ConfigError that lists every mistake by its key.
    """
    document = _parse(path)
    context = {"folder": path.absolute().parent}
    variables = _override(kind, document, environment, context)
    try:
        return kind.model_validate_json(json.dumps(document, default=str), context=context)
    except ValidationError as error:
        mistakes = [_explain(kind, mistake, variables) for mistake in error.errors(include_url=False)]
        raise ConfigError("; ".join(mistakes), where=str(path)) from None


def load_any(path: Path, environment: Mapping[str, str]) -> NodeConfig:
    """Return the configuration of whichever kind of node the file's keys say. Raises ConfigError."""
    document = _parse(path)
    kind = DeviceConfig if "edges" in document else EdgeConfig if "backbone" in document else CloudConfig
    return load(kind, path, environment)


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_file(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not TOML: {error}", where=str(path)) from None


def _override(
    kind: type[NodeConfig], document: dict[str, Any], environment: Mapping[str, str], context: Mapping[str, Any]
) -> dict[tuple[str, ...], str]:
    """Put the environment's values into the document; return the variable behind each key."""
    variables: dict[tuple[str, ...], str] = {}
    key_itself = str(document.get("node_key", "")).removeprefix("env:")  # such a variable holds the key, no address
    for variable, text in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable.startswith(TEST_PREFIX):
            continue
        if variable in OTHER_VARIABLES or variable == key_itself:
            continue
        key = tuple(variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
        field = _field(kind, key)
        if field is None:
            raise ConfigError(f"the variable {variable} names no key", fix=_known(kind, key[:-1], key[-1]))
        section = document
        for part in key[:-1]:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigError(f"the variable {variable} is for a key of {part}, which the file makes a value")
        section[key[-1]] = _value(field, text, context)
        variables[key] = variable
    return variables


def _field(kind: type[Section], key: Sequence[str]) -> Any:
    """Return the annotated type of the value at a key, or None when there is no such value."""
    section: type[Section] | None = kind
    for part in key[:-1]:
        section = _section(section.model_fields[part].annotation) if section and part in section.model_fields else None
    if section is None or key[-1] not in section.model_fields:
        return None
    field = section.model_fields[key[-1]]
    return Annotated[field.annotation, field]


def _section(annotation: Any, *, of_list: bool = False) -> type[Section] | None:
    """Return the section that an annotation means, for a list that of its items if wanted; None for plain values."""
    if get_origin(annotation) is tuple and not of_list:
        return None
    candidates = (annotation, *get_args(annotation))
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, Section)), None)


def _value(field: Any, text: str, context: Mapping[str, Any]) -> Any:
    """Return a variable's text as the field's type wants it: bare where text is right, otherwise read as JSON."""
    try:
        TypeAdapter(field).validate_json(json.dumps(text), strict=True, context=context)
    except ValidationError:
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _explain(kind: type[NodeConfig], mistake: ErrorDetails, variables: Mapping[tuple[str, ...], str]) -> str:
    location = mistake["loc"]
    key = ".".join(str(part) for part in location)
    variable = variables.get(tuple(str(part) for part in location))
    source = f" (from {variable})" if variable else ""
    match mistake["type"]:
        case "missing":
            return f"{key} is missing"
        case "extra_forbidden":
            return f"{key} is no key: {_known(kind, location[:-1], str(location[-1]))}"
        case "value_error":
            return f"{key}{': ' if key else ''}{mistake['msg'].removeprefix('Value error, ')}{source}"
        case _:
            return f"{key}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}, not {mistake['input']!r}{source}"


def _known(kind: type[Section], location: Sequence[str | int], wrong: str) -> str:
    """Return what could be written instead of an unknown key."""
    section: type[Section] = kind
    for part in location:
        if isinstance(part, str) and part in section.model_fields:
            section = _section(section.model_fields[part].annotation, of_list=True) or section
    near = difflib.get_close_matches(wrong, section.model_fields, 1)
    return f"write {near[0]}" if near else f"write one of {', '.join(sorted(section.model_fields))}"
