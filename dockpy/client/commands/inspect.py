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

    Find = Callable[[str], object]

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


def container_inspect_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    return _inspect(options, arguments, lambda name: _container(cli, name, size=options.on("size")))


def image_inspect_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    return _inspect(options, arguments, lambda name: _image(cli, name))


def inspect_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    kind = options.text("type")
    if kind and kind not in _TYPES:
        listed = ", ".join(f'"{name}"' for name in _TYPES)
        raise CommandError(f'unknown type: "{kind}": must be one of {listed}')
    if kind == "container":
        return container_inspect_command(cli, options, arguments)
    if kind == "image":
        return image_inspect_command(cli, options, arguments)
    if kind:
        raise CommandError(f"inspecting a {kind} is not served by this build")

    def find(name: str) -> object:
        try:
            return _container(cli, name, size=options.on("size"))
        except ApiError as error:
            if error.status != 404:
                raise
        try:
            return _image(cli, name)
        except ApiError as error:
            if error.status != 404:
                raise
        raise CommandError(f"Error: No such object: {name}")

    return _inspect(options, arguments, find)


def _container(cli: Cli, name: str, *, size: bool) -> object:
    return cli.connection.get(f"/containers/{quote(name)}/json", {"size": size})


def _image(cli: Cli, name: str) -> object:
    return cli.connection.get(f"/images/{quote(name, '/:@')}/json")


def _inspect(options: Options, names: list[str], find: Find) -> int:
    """All that is found is printed, then what was not is told; exit 1 where anything failed, 64 for
    a bad template.
    """
    form = options.text("format")
    template = _template(form) if form and form != "json" else None
    found: list[object] = []
    failures = []
    for name in names:
        try:
            found.append(find(name))
        except (ApiError, CommandError) as error:
            failures.append(str(error))
    if template is None:
        import json

        if form == "json":
            out(json.dumps(found, separators=(",", ":"), ensure_ascii=False) + "\n")
        else:
            out(json.dumps(found, indent=4, ensure_ascii=False) + "\n")
    else:
        from dockpy.client.template import TemplateError

        for item in found:
            try:
                out(template.render(item) + "\n")
            except TemplateError as error:
                raise CommandError(f"\ntemplate parsing error: {error}") from None
        if not found:
            out("\n")
    for message in failures:
        err(f"{message}\n")
    return 1 if failures else 0


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
