"""`inspect`, `container inspect`, `image inspect`: raw API JSON, indented or through a template."""

from __future__ import annotations

from dockpy.client.connection import quote
from dockpy.client.errors import ApiError, CommandError
from dockpy.client.output import err, out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

    Find = Callable[[str], "Found"]

_TYPES = (
    "config",
    "container",
    "image",
    "network",
    "node",
    "plugin",
    "secret",
    "service",
    "task",
    "volume",
)

_OTHERS = ("network", "volume")


def container_inspect_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    def find(name: str) -> Found:
        return Found(_container(cli, name, size=options.on("size")), "container")

    return _inspect(options, arguments, find)


def image_inspect_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    platform = options.text("platform")
    return _inspect(options, arguments, lambda name: Found(_image(cli, name, platform), "image"))


class Found:
    """What a name stands for, and of which kind it is."""

    __slots__ = ("kind", "value")

    def __init__(self, value: object, kind: str) -> None:
        self.value, self.kind = value, kind


def inspect_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    kind = options.text("type")
    if options.given("type") and kind not in _TYPES:
        listed = ", ".join(f'"{name}"' for name in _TYPES)
        told = f'unknown type: "{kind}"' if kind else "type is empty"
        raise CommandError(f"{told}: must be one of {listed}")
    if kind == "container":
        return container_inspect_command(cli, options, arguments)
    if kind == "image":
        return image_inspect_command(cli, options, arguments)
    if kind in _OTHERS:
        return _inspect(options, arguments, lambda name: _other(cli, name, kind))
    if kind:
        raise CommandError(f"inspecting a {kind} is not served by this build")

    def find(name: str) -> Found:
        try:
            return Found(_container(cli, name, size=options.on("size")), "container")
        except ApiError as error:
            if error.status != 404:
                raise
        try:
            return Found(_image(cli, name), "image")
        except ApiError as error:
            if error.status != 404 and "invalid reference format" not in error.message:
                raise
        for other in _OTHERS:
            try:
                return _other(cli, name, other)
            except ApiError as error:
                if error.status != 404:
                    raise
        raise CommandError(f"Error: No such object: {name}")

    return _inspect(options, arguments, find)


def _container(cli: Cli, name: str, *, size: bool) -> object:
    return cli.connection.get(f"/containers/{quote(name)}/json", {"size": size})


def _image(cli: Cli, name: str, platform: str = "") -> object:
    query: dict[str, object] = {}
    if platform:
        from dockpy.client import platforms

        query["platform"] = platforms.query(cli, [name], [platform])
    return cli.connection.get(f"/images/{quote(name, '/:@')}/json", query)


def _other(cli: Cli, name: str, kind: str) -> Found:
    return Found(cli.connection.get(f"/{kind}s/{quote(name)}"), kind)


def _inspect(options: Options, names: list[str], find: Find) -> int:
    """All that is found is printed, then what was not is told; exit 1 where anything failed, 64 for
    a bad template.
    """
    form = options.text("format")
    template = _template(form) if form and form != "json" else None
    found: list[Found] = []
    failures = []
    for name in names:
        try:
            found.append(find(name))
            if options.on("size") and found[-1].kind != "container":
                err(f"WARNING: --size ignored for {found[-1].kind}\n")
        except (ApiError, CommandError) as error:
            failures.append(str(error))
    if template is None:
        import json

        values = [item.value for item in found]
        if form == "json":
            out(json.dumps(values, separators=(",", ":"), ensure_ascii=False) + "\n")
        else:
            out(json.dumps(values, indent=4, ensure_ascii=False) + "\n")
    else:
        from dockpy.client.template import TemplateError

        lines = []
        for item in found:
            try:
                lines.append(_rendered(template, item) + "\n")
            except TemplateError as error:
                failures.append(f"template parsing error: {error}")
        out("".join(lines) or "\n")
    for message in failures:
        err(f"{message}\n")
    return 1 if failures else 0


def _rendered(template: Template, item: Found) -> str:
    """As docker: with Go's eyes, and where these do not see it, with those of the raw JSON, whose
    errors are the ones that are told.
    """
    from dockpy.client.inspect_types import typed
    from dockpy.client.template import TemplateError

    try:
        return template.render(typed(item.value, item.kind))
    except TemplateError:
        return template.render(item.value)


if TYPE_CHECKING:
    from dockpy.client.template import Template


def _template(form: str) -> Template:
    from dockpy.client.template import Template, TemplateError

    try:
        return Template(form)
    except TemplateError as error:
        raise CommandError(f"template parsing error: {error}", 64) from None


def print_value(value: object, form: str) -> None:
    """One value through --format, for info, version and the daemon's status."""
    if form == "json":
        from dockpy.client.template_functions import to_json

        out(to_json(value) + "\n")
        return
    template = _template(form)
    from dockpy.client.template import TemplateError

    try:
        out(template.render(value) + "\n")
    except TemplateError as error:
        raise CommandError(
            f"template: {error}" if not str(error).startswith("template") else str(error)
        ) from None
