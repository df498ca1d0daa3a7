"""Whether the index of a `local` log (see shim.log) and its data fit: for logs that nobody writes."""

from __future__ import annotations

import os

from dockpy.shim.log import recover
from dockpy.shim.logwriter import RECORD, serials


def problem(folder: str) -> tuple[int, str]:
    """The first file that is not whole, and what is wrong with it; (-1, "") for none."""
    for serial in serials(folder):
        told = _of_file(f"{folder}/{serial}")
        if told:
            return serial, told
    return -1, ""


def _of_file(path: str) -> str:
    with open(f"{path}.index", "rb") as file:
        index = file.read()
    if len(index) % RECORD.size:
        return "its index ends within a record"
    end = 0
    for offset, size, stream, _, _ in RECORD.iter_unpack(index):
        if offset != end or stream not in (1, 2):
            return "its index is no index"
        end = offset + size
    try:
        length = os.stat(f"{path}.data").st_size
    except FileNotFoundError:
        return "" if os.path.exists(f"{path}.data.gz") else "its data are missing"
    if length != end:
        return f"its data have {length} bytes, and the index tells of {end}"
    return ""


def mend(folder: str, serial: int) -> tuple[str, ...]:
    """Cuts the newest file to what is whole; of another one, or where that is no help, the files to set aside."""
    if serial == serials(folder)[-1]:
        recover(folder)
        if not _of_file(f"{folder}/{serial}"):
            return ()
    names = (f"{folder}/{serial}.{kind}" for kind in ("index", "data", "data.gz"))
    return tuple(name for name in names if os.path.lexists(name))
