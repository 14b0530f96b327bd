"""Formats of parameter values, and property strings (`virtio,bridge=vmbr0`), with the real server's error texts."""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Format = Mapping[str, Mapping[str, Any]]

_BOOLEANS = {**dict.fromkeys(("1", "on", "yes", "true"), "1"), **dict.fromkeys(("0", "off", "no", "false"), "0")}


class FormatError(ValueError):
    """Why a value does not match; the text includes the server's final newline."""


def split_list(text: str) -> list[str]:
    """Split a list separated by comma, semicolon or blank."""
    return [part for part in re.split(r"[,;\s\0]+", text) if part]


def _matches(pattern: str, message: str) -> Callable[[str], None]:
    compiled = re.compile(pattern)

    def check(value: str) -> None:
        if not compiled.fullmatch(value):
            raise FormatError(message.format(value) + "\n")

    return check


def _address(kind: Callable[[str], object], message: str) -> Callable[[str], None]:
    def check(value: str) -> None:
        try:
            kind(value)
        except ValueError:
            raise FormatError(f"value does not look like a valid {message}\n") from None

    return check


def _network(version: int, words: tuple[str, ...]) -> Callable[[str], None]:
    """Check an address with its prefix length, or one of the keywords."""

    def check(value: str) -> None:
        try:
            if value not in words and ("/" not in value or ipaddress.ip_interface(value).version != version):
                raise ValueError(value)
        except ValueError:
            raise FormatError(f"value does not look like a valid ipv{version} network configuration\n") from None

    return check


def _cidr(value: str) -> None:
    try:
        if "/" not in value:
            raise ValueError(value)
        ipaddress.ip_interface(value)
    except ValueError:
        raise FormatError("value does not look like a valid CIDR network\n") from None


def _hotplug(value: str) -> None:
    known = ("network", "disk", "cpu", "memory", "usb", "cloudinit")
    wrong = next((each for each in split_list(value) if each not in known), None)
    if value not in ("0", "1") and wrong:
        raise FormatError(f"invalid hotplug feature '{wrong}'\n")


_VMID = _matches(r"[1-9][0-9]{2,8}", "value does not look like a valid VM ID")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"

NAMED: dict[str, Callable[[str], None]] = {
    "pve-vmid": _VMID,
    "pve-node": _matches(_LABEL, "value does not look like a valid node name"),
    "pve-configid": _matches(r"(?i)[a-z][a-z0-9_-]+", "invalid configuration ID '{}'"),
    "pve-storage-id": _matches(r"(?i)[a-z][a-z0-9\-_.]*[a-z0-9]", "storage ID '{}' contains illegal characters"),
    "pve-poolid": _matches(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+){0,2}", "value '{}' contains invalid characters"),
    "pve-userid": _matches(r"[^\s:/@]+@[A-Za-z][A-Za-z0-9.\-_]+", "value '{}' does not look like a valid user name"),
    "pve-roleid": _matches(r"[A-Za-z0-9.\-_]+", "value '{}' contains invalid characters"),
    "pve-bridge-id": _matches(r"[a-zA-Z0-9][-_.\w]*", "value does not look like a valid bridge name"),
    "dns-name": _matches(rf"{_LABEL}(?:\.{_LABEL})*", "value does not look like a valid DNS name"),
    "mac-addr": _matches(
        r"(?i)[a-f0-9][02468ace](?::[a-f0-9]{2}){5}", "value does not look like a valid unicast MAC address"
    ),
    "urlencoded": _matches(r"[-%a-zA-Z0-9_.!~*'()]*", "invalid urlencoded string: {}"),
    "pve-task-status-type": _matches(r"ok|error|warning|unknown", "invalid status '{}'"),
    "pve-tag": _matches(r"(?i)[a-z0-9_][a-z0-9_\-+.]*", "invalid characters in tag"),
    "ip": _address(ipaddress.ip_address, "IP address"),
    "ipv4": _address(ipaddress.IPv4Address, "IPv4 address"),
    "ipv6": _address(ipaddress.IPv6Address, "IPv6 address"),
    "CIDR": _cidr,
    "pve-hotplug-features": _hotplug,
    "pve-ipv4-config": _network(4, ("dhcp",)),
    "pve-ipv6-config": _network(6, ("dhcp", "auto")),
}

# Property strings that the documentation names but does not spell out.
_OPTIONAL = {"type": "string", "optional": 1}
PROPERTY_STRINGS: dict[str, Format] = {
    "pve-qm-ipconfig": {
        "ip": {**_OPTIONAL, "format": "pve-ipv4-config"},
        "gw": {**_OPTIONAL, "format": "ipv4"},
        "ip6": {**_OPTIONAL, "format": "pve-ipv6-config"},
        "gw6": {**_OPTIONAL, "format": "ipv6"},
    },
    "pve-qm-boot": {
        "legacy": {**_OPTIONAL, "default_key": 1, "pattern": "[acdn]{1,4}"},
        "order": _OPTIONAL,
    },
    "pve-qm-smbios1": {
        "uuid": {**_OPTIONAL, "pattern": "[a-fA-F0-9]{8}(?:-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}"},
        "base64": {"type": "boolean", "optional": 1},
        **dict.fromkeys(("version", "serial", "manufacturer", "product", "sku", "family"), _OPTIONAL),
    },
    "pve-startup-order": {
        "order": {"type": "integer", "optional": 1, "default_key": 1},
        "up": {"type": "integer", "optional": 1},
        "down": {"type": "integer", "optional": 1},
    },
    "pve-qm-cicustom": dict.fromkeys(("meta", "network", "user", "vendor"), _OPTIONAL),
}


def check_format(form: str | Format, value: str, path: str) -> None:
    """Raise FormatError if the value does not match the format. Unknown formats accept everything."""
    if not isinstance(form, str):
        parse_property_string(form, value, path)
    elif form in PROPERTY_STRINGS:
        parse_property_string(PROPERTY_STRINGS[form], value, path)
    elif form in NAMED:
        NAMED[form](value)
    elif form.endswith("-opt"):
        if value:
            check_format(form.removesuffix("-opt"), value, path)
    elif form.endswith("-list"):
        for element in split_list(value):
            check_format(form.removesuffix("-list"), element, path)


def _parts(form: Format, text: str) -> Iterator[tuple[str, str]]:
    """Return keys and values as written; a value without key gets the default key, aliases are resolved."""
    default = next((key for key, prop in form.items() if prop.get("default_key")), None)
    for part in filter(str.strip, text.split(",")):
        key, separator, value = part.partition("=")
        if separator and (not key or not value):
            raise FormatError("missing key in comma-separated list property\n")
        if not separator:
            if default is None:
                raise FormatError("value without key, but schema does not define a default key\n")
            key, value = default, part
        prop = form.get(key, {})
        if "alias" in prop:
            if "keyAlias" in prop:
                yield str(prop["keyAlias"]), key
            key = str(prop["alias"])
        yield key, value


def parse_property_string(form: Format, text: str, path: str = "value") -> dict[str, str]:
    """Parse the string into a dictionary; booleans are `1` and `0`. FormatError names every invalid part."""
    parsed: dict[str, str] = {}
    for key, value in _parts(form, text):
        if key in parsed:
            raise FormatError(f"duplicate key in comma-separated list property: {key}\n")
        boolean = form.get(key, {}).get("type") == "boolean"
        parsed[key] = _BOOLEANS.get(value.lower(), value) if boolean else value
    errors = check_members(form, parsed, path + ".")
    if errors:
        raise FormatError("format error\n" + "".join(f"{name}: {why}\n" for name, why in sorted(errors.items())))
    return parsed


def print_property_string(values: Mapping[str, str], first: str) -> str:
    """Format the dictionary: the default key's value alone and first, the others sorted."""
    rest = [f"{key}={values[key]}" for key in sorted(values) if key != first]
    return ",".join([values[first], *rest])


def check_members(form: Format, values: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Return the errors of an object's members by their full name."""
    errors: dict[str, str] = {}
    for name, prop in form.items():
        if "alias" not in prop and not prop.get("optional") and name not in values:
            errors[prefix + name] = "property is missing and it is not optional"
    for name, value in values.items():
        prop_or_none = form.get(name)
        if prop_or_none is None:
            errors[prefix + name] = (
                "property is not defined in schema and the schema does not allow additional properties"
            )
            continue
        why = check_value(prop_or_none, value, prefix + name)
        if why:
            errors[prefix + name] = why
    return errors


_TYPES = {"integer": r"[+-]?\d+", "number": r"[+-]?(\d+\.\d+|\d+\.?|\.\d+)", "boolean": r"[01]"}


def check_value(prop: Mapping[str, Any], value: Any, path: str) -> str | None:
    """Return why the value does not match its property, or None."""
    kind = str(prop.get("type", "string"))
    if isinstance(value, list):
        if kind != "array":
            return f"type check ('{kind}') failed - got 'ARRAY(0x55d0c0de)'"
        wrong = (check_value(prop.get("items", {}), element, path) for element in value)
        return next(filter(None, wrong), None)
    if kind in _TYPES and not re.fullmatch(_TYPES[kind], value):
        return f"type check ('{kind}') failed - got '{value}'"
    try:
        if prop.get("format"):
            check_format(prop["format"], value, path)
    except FormatError as error:
        return f"invalid format - {error}"
    return _outside_limits(prop, value)


def _outside_limits(prop: Mapping[str, Any], value: str) -> str | None:
    if "pattern" in prop and not re.search(f"^(?:{prop['pattern']})$", value):
        return "value does not match the regex pattern"
    if len(value) > prop.get("maxLength", len(value)):
        return f"value may only be {prop['maxLength']} characters long"
    if len(value) < prop.get("minLength", 0):
        return f"value must be at least {prop['minLength']} characters long"
    if re.fullmatch(_TYPES["number"], value):
        if float(value) > prop.get("maximum", float(value)):
            return f"value must have a maximum value of {prop['maximum']}"
        if float(value) < prop.get("minimum", float(value)):
            return f"value must have a minimum value of {prop['minimum']}"
    if "enum" in prop and value not in map(str, prop["enum"]):
        return f"value '{value}' does not have a value in the enumeration '{', '.join(map(str, prop['enum']))}'"
    return None
