"""The lab's hand inside the machine: one JSON line in, one out, on a virtio serial port. Runs as root."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from typing import Any


def answer(request: dict[str, Any]) -> dict[str, object]:
    if "put" in request:
        with open(request["put"], "wb") as file:
            file.write(base64.b64decode(request["data"]))
            os.fchmod(file.fileno(), request["mode"])
        return {"code": 0, "out": "", "err": ""}
    try:
        done = subprocess.run(
            request["argv"],
            input=base64.b64decode(request["input"]),
            capture_output=True,
            timeout=request["timeout"],
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as late:
        return {
            "code": 124,
            "out": _text(late.stdout),
            "err": _text(late.stderr) + "\n(lab: too long)",
        }
    return {"code": done.returncode, "out": _text(done.stdout), "err": _text(done.stderr)}


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")


def main(port: str) -> None:
    with open(port, "r+b", buffering=0) as line:
        line.write(b'{"ready":true}\n')
        buffer = b""
        while True:
            buffer += line.read(1 << 16)
            while b"\n" in buffer:
                one, _, buffer = buffer.partition(b"\n")
                line.write(json.dumps(answer(json.loads(one))).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1])
