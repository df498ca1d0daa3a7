"""A layer's stages as lines: none left out, none twice."""

from __future__ import annotations

from pathlib import Path

from dockpy.images.progress import Line, bar, size
from dockpy.images.progress import _Row as Row
from dockpy.images.transfer import DONE, DOWNLOADING, WAITING, Layer
from dockpy.oci.descriptor import OCI_LAYER_GZIP, Descriptor
from dockpy.oci.digest import digest_bytes
from dockpy.storage.content import ContentStore
from dockpy.storage.partial import Partials


def test_sizes_and_bars_are_dockers() -> None:
    assert [size(n) for n in (0, 999, 1000, 12_345_678, 3 << 40)] == [
        "0B",
        "999B",
        "1kB",
        "12.35MB",
        "3.299TB",
    ]
    assert bar(500, 1000) == "[" + "=" * 25 + ">" + " " * 25 + "]     500B/1kB"
    assert bar(1000, 1000) == "[" + "=" * 50 + ">]      1kB/1kB"
    assert bar(1, 0).endswith("1B/0B")


def test_stages_are_told_in_order(tmp_path: Path) -> None:
    content = ContentStore(str(tmp_path))
    data = b"x" * 1000
    layer = Layer(
        Descriptor(OCI_LAYER_GZIP, digest_bytes(data), len(data)), Partials(content), here=False
    )
    row = Row(layer)
    told: list[Line] = [row.first()]
    for stage in (WAITING, WAITING, DOWNLOADING):
        layer.stage = stage
        told += row.changes()
    layer.partial.begin()
    layer.partial.write(data[:400])
    layer.retry_in = 2
    told += row.changes()
    layer.retry_in = 0
    told += [*row.changes(), *row.changes()]
    layer.stage = DONE
    told += [*row.changes(), *row.changes()]
    assert [line["status"] for line in told] == [
        "Pulling fs layer",
        "Waiting",
        "Retrying in 2 seconds",
        "Downloading",
        "Verifying Checksum",
        "Download complete",
        "Pull complete",
    ]
    assert told[3]["progressDetail"] == {"current": 400, "total": 1000}
    layer.close()
