"""Decodes the parameters of a request (query, form, JSON or upload) like the real server."""

import json
import re
from collections.abc import Mapping
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import unquote_plus

from lab.api.errors import ApiError

MAX_BODY = 512 * 1024
_PLAIN_ERROR = "at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 934."


def urlencoded(text: str) -> dict[str, Any]:
    """Parse pairs separated by `&` or `;`. A repeated key becomes a list."""
    params: dict[str, Any] = {}
    for part in filter(None, re.split("[&;]", text)):
        key, _, value = (unquote_plus(side) for side in part.partition("="))
        if key in params:
            before = params[key]
            params[key] = [*before, value] if isinstance(before, list) else [before, value]
        else:
            params[key] = value
    return params


def _plain(message: str, status: int) -> ApiError:
    """Return an error that the real server raises before it can answer with JSON."""
    return ApiError(message, status, body=message if status == 501 or status == 506 else message + "\n")


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        rest = json.dumps(error.doc[error.pos :].rstrip("}"))
        expected = "'\"' expected" if error.msg.startswith("Expecting property name") else "malformed JSON string"
        raise _plain(f"{expected}, at character offset {error.pos} (before {rest}) {_PLAIN_ERROR}", 500) from None
    if not isinstance(value, dict):
        raise _plain(f"JSON object expected {_PLAIN_ERROR}", 500)
    return value


def _multipart(content_type: str, body: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the fields, and the uploaded files by field name; a file's own name is the field's value."""
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for part in message.iter_parts() if message.is_multipart() else ():
        name = str(part.get_param("name", "", header="content-disposition"))
        content = part.get_payload(decode=True)
        raw = content if isinstance(content, bytes) else b""
        filename = part.get_filename()
        if filename is None:
            fields[name] = raw.decode("utf-8", "replace").strip("\r\n")
        else:
            fields[name], files[name] = filename, raw
    return fields, files


def check_framing(method: str, headers: Mapping[str, str]) -> None:
    """Raise what the server refuses before it reads a body."""
    if method not in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        raise ApiError(f"method '{method}' not available", 501, body="")
    if headers.get("Transfer-Encoding"):
        raise _plain("chunked transfer encoding not supported", 501)


def check_content(method: str, headers: Mapping[str, str]) -> None:
    """Raise what the server refuses once it knows the caller."""
    length = int(headers.get("Content-Length") or 0)
    if not length:
        return
    if method not in ("POST", "PUT"):
        raise _plain(f"Unexpected content for method '{method}'", 501)
    kind = headers.get("Content-Type", "application/x-www-form-urlencoded").partition(";")[0].strip().lower()
    if kind not in ("application/x-www-form-urlencoded", "application/json", "multipart/form-data"):
        raise _plain(f"upload 'Content-Type '{kind}' not implemented", 506)
    if length > MAX_BODY and kind != "multipart/form-data":
        raise _plain("for data too large", 501)


def decode(query: str, content_type: str, body: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return parameters and files; the query overrides the body."""
    files: dict[str, bytes] = {}
    params: dict[str, Any] = {}
    kind = content_type.partition(";")[0].strip().lower()
    if body and kind == "multipart/form-data":
        params, files = _multipart(content_type, body)
    elif body and kind == "application/json":
        params = _json(body.decode("utf-8", "replace"))
    elif body:
        params = urlencoded(body.decode("utf-8", "replace"))
    return {**params, **urlencoded(query)}, files
