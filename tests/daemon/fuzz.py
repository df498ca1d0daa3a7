"""Requests made up from the Engine API's own document: mostly near what is right, now and then far from it.

Deterministic: a seed gives the same requests again. What a request changes by success is its right;
nothing of ours may be found in an answer, and nothing may take long.
"""

from __future__ import annotations

import json
import random
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "data/engine-api/operations-1.50.json"

TEXTS = (
    "", "x", "0", "-1", "true", "null", "..", "../../etc/passwd", "/", "/etc", "/tmp", "a/b:c", "a:b:c", "@sha256:00",
    "sha256:" + "0" * 64, "%00", "\x00", "\r\nX: y", "ü", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    " ", "a" * 300, "{}", "[]", '{"a":1}', '{"status":["running"]}', '{"until":["x"]}', '{"label":{"a":true}}', "1e999",
    "9" * 30, "10s", "SIGTERM", "KILL", "RTMIN+3", "linux/amd64", "windows", "no-such", "latest", "local", "host", "none",
    "container:", "container:x", "$(id)", "-rf", "2020-01-01T00:00:00Z", "1.5", "0x10", "NaN",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 7, 65536, 1 << 31, 1 << 63, -(1 << 63), 1 << 70, 0.5, -0.0, 1e308)
# Waiting so long would be right, too.
PATIENT = frozenset({"t", "Timeout", "StopTimeout"})
# Nothing here asks another machine.
NAMES_ELSEWHERE = frozenset({"fromImage", "remote", "serveraddress", "fromSrc"})


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    documented: frozenset[int] = frozenset()

    def bytes(self) -> bytes:
        head = [f"{self.method} {self.target} HTTP/1.1", "Host: d", "Connection: close"]
        head += [f"{name}: {value}" for name, value in self.headers]
        head += ["Content-Type: application/json", f"Content-Length: {len(self.body)}"]
        return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + self.body


def operations() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DATA.read_text())["operations"]
    return found


class Fuzzer:
    """`known`: for a parameter in a path, what exists (`id` and `name` by the path's noun)."""

    def __init__(self, seed: int, known: Mapping[str, Sequence[str]]) -> None:
        self._random = random.Random(seed)
        self._known = known

    def request(self, operation: Mapping[str, Any]) -> Request:
        path: str = operation["path"]
        query: list[tuple[str, str]] = []
        headers: list[tuple[str, str]] = []
        body = b""
        noun = path.split("/")[1]
        for parameter in operation["parameters"]:
            name, place = parameter["name"], parameter["in"]
            if place == "path":
                path = path.replace("{" + name + "}", self._in_path(noun))
            elif place == "body":
                body = self._body(parameter["schema"])
            elif parameter["required"] or self._random.random() < 0.5:
                value = self._parameter(parameter)
                if place == "header":
                    headers.append((name, _printable(value)))
                else:
                    query.append((name, value))
        if self._random.random() < 0.1:
            query.append((self._random.choice(("unknown", "t", "filters")), self._text()[:40]))
        version = self._random.choice(("", "/v1.41", "/v1.44", "/v1.50"))
        target = version + path
        if query:
            target += "?" + urllib.parse.urlencode(query, errors="surrogatepass")
        documented = frozenset(operation["responses"])
        return Request(operation["method"], target, body, tuple(headers), documented)

    def _in_path(self, noun: str) -> str:
        known = self._known.get(noun, ())
        if known and self._random.random() < 0.7:
            return self._random.choice(known)
        text = self._text()
        if noun in ("images", "distribution"):
            text = f"127.0.0.1:1/{text[:40]}"  # nobody listens there
        return urllib.parse.quote(text, safe="", errors="surrogatepass") or "-"

    def _parameter(self, parameter: Mapping[str, Any]) -> str:
        name = parameter["name"]
        if name in PATIENT:
            return self._random.choice(("0", "1", "x", "", "1.5"))
        if name in NAMES_ELSEWHERE:
            return self._random.choice(("127.0.0.1:1/x", "-", "", "127.0.0.1:1/" + "A" * 300, "::"))
        if self._random.random() < 0.6:
            if "enum" in parameter:
                return str(self._random.choice(parameter["enum"]))
            kind = parameter["type"]
            if kind == "boolean":
                return self._random.choice(("0", "1", "true", "false"))
            if kind == "integer":
                return str(self._random.choice((0, 1, 10, 80)))
        return self._text()

    def _text(self) -> str:
        if self._random.random() < 0.8:
            return self._random.choice(TEXTS)
        return "".join(
            chr(self._random.randrange(0x20, 0x2FF)) for _ in range(self._random.randrange(40))
        )

    def _body(self, schema: Mapping[str, Any]) -> bytes:
        draw = self._random.random()
        if draw < 0.05:
            return self._random.randbytes(self._random.randrange(2000))
        if draw < 0.1:
            return b"[" * self._random.choice((10, 100_000))
        data = json.dumps(self._value("", schema, 0)).encode()
        return data[: self._random.randrange(len(data) + 1)] if draw < 0.15 else data

    def _value(self, name: str, schema: Mapping[str, Any], depth: int) -> object:
        if name in PATIENT:
            return self._random.choice((0, 1, None))
        if name in NAMES_ELSEWHERE:
            return "127.0.0.1:1"
        if self._random.random() < 0.06:
            return self._random.choice((None, True, "x", 1, -1, [], {}, [None], {"": None}))
        kind = schema.get("type")
        if "enum" in schema and self._random.random() < 0.8:
            return self._random.choice(schema["enum"])
        if kind == "object":
            chance = 0.25 if depth else 0.35
            found = {
                key: self._value(key, inner, depth + 1)
                for key, inner in schema.get("properties", {}).items()
                if self._random.random() < chance
            }
            if (
                "Image" in schema.get("properties", {})
                and not depth
                and self._random.random() < 0.8
            ):
                found["Image"] = self._random.choice(self._known["images"])
            if "additional" in schema:
                found[self._text()] = self._value("", schema["additional"], depth + 1)
            return found
        if kind == "array":
            inner = schema.get("items", {})
            return [self._value("", inner, depth + 1) for _ in range(self._random.randrange(3))]
        if kind == "integer" or kind == "number":
            return self._random.choice(NUMBERS)
        if kind == "boolean":
            return self._random.random() < 0.5
        return self._text()


def _printable(text: str) -> str:
    return "".join(c for c in text if " " <= c <= "~").strip()
