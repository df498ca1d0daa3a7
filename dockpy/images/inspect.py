"""The Engine API's ImageInspect and ImageSummary (1.50) of an image: values to JSON, no effects."""

from __future__ import annotations

import calendar
import time

from dockpy.images.image import Image
from dockpy.storage.snapshot import Snapshotter


def inspect(image: Image, snapshots: Snapshotter) -> dict[str, object]:
    config = image.config
    answer: dict[str, object] = {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": "",
        "Comment": config.comment or (config.history[-1].comment if config.history else ""),
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Config": config.config.to_json(),
        "Architecture": config.platform.architecture,
        "Os": config.platform.os,
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Name": snapshots.name, "Data": {}},
        "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)},
        "Metadata": {"LastTagTime": image.tagged or "0001-01-01T00:00:00Z"},
        "Descriptor": image.descriptor.to_json(),
    }
    # Docker leaves these out when the image does not say them.
    if image.created:
        answer["Created"] = image.created
    if config.platform.variant:
        answer["Variant"] = config.platform.variant
    if config.platform.os_version:
        answer["OsVersion"] = config.platform.os_version
    return answer


def summary(image: Image) -> dict[str, object]:
    """`SharedSize` and `Containers` are -1: not calculated, for whoever knows to fill in."""
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Created": unix_time(image.created),
        "Size": image.size,
        "SharedSize": -1,
        "VirtualSize": image.size,
        "Labels": dict(image.config.config.labels),
        "Containers": -1,
        "Descriptor": image.descriptor.to_json(),
    }


def unix_time(text: str) -> int:
    """Seconds since the epoch of an RFC 3339 time; 0 when there is none, as docker's for images
    without one.
    """
    moment, zone = text[:19], text[19:].lstrip(".0123456789")
    try:
        seconds = calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%S"))
        if zone[:1] in ("+", "-") and len(zone) == 6:
            offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
            seconds += -offset if zone[0] == "+" else offset
    except ValueError:
        return 0
    return seconds
