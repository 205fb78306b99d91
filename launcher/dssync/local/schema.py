"""Checks a document against the schema inside the CRD and fills in its defaults.

It does what an API server does. There is one contract with users, ``crds/dssyncjob.yaml``, and
no second copy of it. A structural schema of Kubernetes is JSON Schema but for four habits, which
are made explicit here: objects are closed unless they preserve unknown fields, lists may be
keyed, integers have a format, and null is a mark of its own.
"""

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend

from dssync.errors import ManifestError

INT32_MAX: Final = 2**31 - 1
_PACKAGED: Final = Path(__file__).parent / "dssyncjob.yaml"
_CHECKOUT: Final = Path(__file__).parents[3] / "crds" / "dssyncjob.yaml"
_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
_KEYS: Final = "x-kubernetes-list-map-keys"
_TYPES: Final = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "integer": "an integer",
    "boolean": "true or false",
}

_EXPECTATIONS: Final = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "pattern": "text that matches {}",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "uniqueItems": "no value twice",
}


@cache
def custom_resource_schema() -> Mapping[str, object]:
    """Return the schema of the served version: from the wheel, else from the checkout."""
    path = _PACKAGED if _PACKAGED.exists() else _CHECKOUT
    definition = yaml.safe_load(path.read_text())
    schema: dict[str, object] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def complete(document: Mapping[str, object], source: str) -> dict[str, object]:
    """Return a copy of a document with the schema's defaults, after checking it.

    Args:
        document: A DSSyncJob as parsed from YAML.
        source: Where it came from; begins the sentence of an error.

    Raises:
        ManifestError: A field is unknown, missing or has a value that the schema refuses.
    """
    schema = custom_resource_schema()
    completed = copy.deepcopy(dict(document))
    _fill(completed, schema)
    error = best_match(_validator().iter_errors(completed))
    if error is not None:
        raise ManifestError(f"{source}: {_sentence(error)}")
    return completed


def path_text(path: tuple[str | int, ...]) -> str:
    """Write a path as ``spec.containers[0].name``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def _fill(value: Any, schema: Any) -> None:
    """Apply defaults in place; a null where there is a default counts as absent."""
    if isinstance(value, dict):
        for key, part in schema.get("properties", {}).items():
            if value.get(key) is None and "default" in part:
                value[key] = copy.deepcopy(part["default"])
            _fill(value.get(key), part)
    elif isinstance(value, list):
        for item in value:
            _fill(item, schema.get("items", {}))


@cache
def _validator() -> Any:
    validator: Any = extend(Draft202012Validator, {_KEYS: _unique_keys})  # type: ignore[no-untyped-call]
    return validator(_closed(custom_resource_schema()))


def _closed(schema: Any) -> Any:
    """Rewrite a structural schema so that JSON Schema refuses what an API server refuses."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: part if key == "default" else _closed(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get(_PRESERVE):
        closed.setdefault("additionalProperties", False)
    if schema.get("format") == "int32":
        closed["maximum"] = min(INT32_MAX, schema.get("maximum", INT32_MAX))
    if schema.get("nullable"):
        closed["type"] = [schema["type"], "null"]
    if schema.get("x-kubernetes-list-type") == "set":
        closed["uniqueItems"] = True
    return closed


def _unique_keys(_: Any, keys: Any, items: Any, __: Any) -> Iterator[ValidationError]:
    seen: set[tuple[object, ...]] = set()
    for item in items if isinstance(items, list) else []:
        identity = tuple(str(item.get(key)) for key in keys) if isinstance(item, dict) else ()
        if identity in seen:
            yield ValidationError(f"only one entry with {keys[0]} {identity[0]!r}")
        seen.add(identity)


def _sentence(error: Any) -> str:
    path = path_text(tuple(error.absolute_path)) or "the manifest"
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        return f"{path} has no {missing!r}, which is required"
    if error.validator == "additionalProperties":
        unknown = next(key for key in error.instance if key not in error.schema["properties"])
        known = ", ".join(error.schema["properties"])
        return f"{path} has an unknown field {unknown!r}; expected one of {known}"
    return f"{path} is {_shortened(error.instance)}; expected {_expectation(error)}"


def _expectation(error: Any) -> str:
    expected = error.validator_value
    if error.validator == "type":
        return _TYPES[expected]
    if error.validator == "anyOf":
        return " or ".join(_TYPES[choice["type"]] for choice in expected)
    if error.validator == "enum":
        return "one of " + ", ".join(map(str, expected))
    template = _EXPECTATIONS.get(error.validator)
    return template.format(expected) if template else str(error.message)


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
