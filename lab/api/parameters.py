"""The parameters of a call: checked against the schema and converted to their types."""

from collections.abc import Mapping
from typing import Any

from lab.api.errors import ParameterError
from lab.api.formats import check_value
from lab.api.schema import Property, RouteSchema

Raw = Mapping[str, Any]


def merge_uri(uri: Mapping[str, str], params: Raw) -> dict[str, Any]:
    """Merge the parameters of request and URI; a parameter may be repeated with the same value."""
    for name in uri.keys() & params.keys():
        if str(params[name]) != uri[name]:
            raise ParameterError({name: "duplicate parameter (already defined in URI) with conflicting values!"})
    return {**params, **uri}


def _as_text(value: Any, prop: Property) -> Any:
    """Return JSON values and repeated keys in the form of a urlencoded body."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, list):
        texts = [_as_text(element, {}) for element in value]
        joined = prop.get("type", "string") == "string" and str(prop.get("format", "")).endswith("-list")
        return ",".join(texts) if joined else texts
    if prop.get("type") == "array":
        return [str(value)]
    return str(value)


def _typed(value: Any, prop: Property) -> Any:
    return int(value) if prop.get("type") in ("integer", "boolean") else value


def checked(schema: RouteSchema, params: Raw) -> dict[str, Any]:
    """Return the parameters with their types; raises ParameterError with all errors. JSON's null counts as absent."""
    errors: dict[str, str] = {}
    good: dict[str, Any] = {}
    for name, value in params.items():
        prop = schema.property(name)
        if prop is None:
            errors[name] = "property is not defined in schema and the schema does not allow additional properties"
        elif value is not None:
            text = _as_text(value, prop)
            why = check_value(prop, text, name)
            if why:
                errors[name] = why
            else:
                good[name] = _typed(text, prop)
    for name in schema.required:
        if params.get(name) is None:
            errors[name] = "property is missing and it is not optional"
    if errors:
        raise ParameterError(errors)
    return good
