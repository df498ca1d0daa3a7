"""`--health-*` and `--no-healthcheck` of `run` and `create`. Imported when one is given."""

from __future__ import annotations

from dockpy.client import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options

    Body = dict[str, object]


def healthcheck(options: Options) -> Body | None:
    """None for docker's `--no-healthcheck=false`, which says nothing."""
    given = any(name.startswith("health-") for name in options.names())
    if options.on("no-healthcheck"):
        if given:
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not given:
        return None
    health: Body = {}
    if options.text("health-cmd"):
        health["Test"] = ["CMD-SHELL", options.text("health-cmd")]
    for name, field in (
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start-period", "StartPeriod"),
        ("start-interval", "StartInterval"),
    ):
        if options.given(f"health-{name}"):
            value = units.duration(options.text(f"health-{name}"))
            if value < 0:
                raise ValueError(f"--health-{name} cannot be negative")
            health[field] = value
    retries = options.number("health-retries")
    if retries < 0:
        raise ValueError("--health-retries cannot be negative")
    health["Retries"] = retries
    return health
