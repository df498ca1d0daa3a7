"""os/architecture[/variant] as the image specification writes it; what this host is, and what it can run."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dockpy.errors import InvalidParameter
from dockpy.oci.fields import Fields, without_empty

# uname's and people's names → (architecture, variant) in GOARCH's words (containerd's platforms package).
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "386": ("386", ""),
    "aarch64": ("arm64", ""),
    "arm64": ("arm64", ""),
    "armv8l": ("arm", "v7"),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armel": ("arm", "v6"),
    "arm": ("arm", "v7"),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "mips64": ("mips64", ""),
    "mips64le": ("mips64le", ""),
    "loongarch64": ("loong64", ""),
    "loong64": ("loong64", ""),
}
_SYSTEMS = frozenset(("linux", "windows", "darwin", "freebsd"))
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.-")


@dataclass(frozen=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def to_json(self) -> dict[str, object]:
        return without_empty(
            (
                ("architecture", self.architecture),
                ("os", self.os),
                ("os.version", self.os_version),
                ("variant", self.variant),
            )
        )

    def normal(self) -> Platform:
        """The same platform in canonical words: arm64/v8 is arm64, arm is arm/v7, aarch64 is arm64."""
        architecture, variant = _ARCHITECTURES.get(self.architecture, (self.architecture, ""))
        variant = self.variant or variant
        if (architecture, variant) in (("arm64", "v8"), ("arm64", "8"), ("amd64", "v1")):
            variant = ""
        if architecture == "arm" and variant in ("5", "6", "7", "8"):
            variant = "v" + variant
        return Platform(self.os, architecture, variant, self.os_version)

    def rank_for(self, wanted: Platform) -> int | None:
        """How well an image of this platform serves `wanted`: 0 is exact, larger is worse, None not at all."""
        have, want = self.normal(), wanted.normal()
        if (have.os, have.architecture) != (want.os, want.architecture):
            return None
        if have.variant == want.variant:
            return 0
        if want.architecture in ("arm", "amd64"):
            # A newer core runs code for an older one; never the other way.
            got, top = _version(have.variant or "v1"), _version(want.variant or "v1")
            return top - got if got < top else None
        return 1 if not have.variant else None


def _version(variant: str) -> int:
    digits = variant.lstrip("v")
    return int(digits) if digits.isdigit() else 99


def platform_from_json(raw: object) -> Platform:
    fields = Fields(raw, "platform")
    return Platform(
        fields.text("os"),
        fields.text("architecture"),
        fields.text("variant", ""),
        fields.text("os.version", ""),
    )


def host_platform() -> Platform:
    machine = os.uname().machine
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


def parse_platform(text: str) -> Platform:
    """`linux/arm64/v8`, `linux/amd64`, and docker's short forms `arm64` and `linux`."""
    parts = text.strip().lower().split("/")
    if not text or len(parts) > 3 or not all(part and _ALLOWED.issuperset(part) for part in parts):
        raise InvalidParameter(
            f"{text!r:.80} is not a platform: expected os/architecture[/variant]"
        )
    if len(parts) == 1:
        if parts[0] in _SYSTEMS:
            host = host_platform()
            return Platform(parts[0], host.architecture, host.variant)
        if parts[0] not in _ARCHITECTURES:
            raise InvalidParameter(f"{text!r:.80}: unknown operating system or architecture")
        return Platform("linux", parts[0]).normal()
    return Platform(*parts).normal()
