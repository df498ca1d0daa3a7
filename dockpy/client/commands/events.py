"""`events`: what happens, a line each, also when the daemon dies in between."""

from __future__ import annotations

from dockpy import fastjson
from dockpy.client import listing, units
from dockpy.client.errors import CommandError, Disconnected
from dockpy.client.output import write_all
from dockpy.client.template_values import Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dockpy.client.connection import Stream
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

    Show = Callable[[dict[str, object]], str]


class Message(dict):  # type: ignore[type-arg]  # dict[str, object], which is no base class at run time before 3.9
    """An event under the names of Go's struct; a template that asks for another field is wrong."""

    go_type = "*events.Message"


def check_filter(value: str) -> None:
    if "=" not in value:
        raise ValueError("bad format of filter (expected name=value)")


CHECKS = {"filter": check_filter}


def events_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    show = _shower(options.text("format"))
    query: dict[str, object] = {"filters": listing.query_filters(options.many("filter"))}
    for name in ("since", "until"):
        if options.text(name):
            query[name] = _moment(options.text(name))
    last = [0]  # the newest time that was shown, ns
    while True:
        stream = cli.connection.stream("GET", "/events", query)
        try:
            if _copy(stream, show, last) or not cli.own_daemon:
                return 0
        except Disconnected:
            if not cli.own_daemon:
                raise
        # The daemon is gone; the next one tells what has happened since.
        since = last[0] + 1 if last[0] else _started()
        query["since"] = f"{since // 10**9}.{since % 10**9:09d}"
        _await_daemon(cli)


def _started() -> int:
    import time

    return time.time_ns() - 5 * 10**9


def _await_daemon(cli: Cli) -> None:
    from dockpy.client.commands.logs import await_daemon

    await_daemon(cli, "/version")  # an answer of JSON, as that expects


def _moment(text: str) -> str:
    import time

    try:
        return units.timestamp(text, time.time())
    except ValueError as error:
        raise CommandError(str(error)) from None


def _copy(stream: Stream, show: Show, last: list[int]) -> bool:
    """Until the stream's end; whether that was the daemon's word and not its death."""
    rest = b""
    try:
        while True:
            try:
                piece = stream.piece()
            except OSError as error:
                raise Disconnected(f"the daemon went away: {error.strerror}") from None
            if not piece:
                return True
            *lines, rest = (rest + piece).split(b"\n")
            shown = []
            for line in lines:
                raw = fastjson.loads(line) if line.strip() else None
                if isinstance(raw, dict):
                    shown.append(show(raw))
                    last[0] = max(last[0], int(str(raw.get("timeNano") or 0)))
            write_all(1, "".join(shown).encode("utf-8", "surrogateescape"))
    finally:
        stream.close()


def _shower(form: str) -> Show:
    if not form:
        return _line
    from dockpy.client.template import Template, TemplateError
    from dockpy.client.template_functions import to_json

    if form == "json":
        return lambda raw: to_json(raw) + "\n"
    try:
        template = Template(form.replace("\\t", "\t").replace("\\n", "\n"))
        template.render(_message({}))  # a field that there is not is told before the first event
    except TemplateError as error:
        raise CommandError(f"Error parsing format: template: {_placed(error)}", 64) from None

    def show(raw: dict[str, object]) -> str:
        try:
            return template.render(_message(raw)) + "\n"
        except TemplateError as error:
            raise CommandError(f"template: {_placed(error)}") from None

    return show


def _placed(error: Exception) -> str:
    return str(error).partition("template: ")[2] or str(error)


def _message(raw: dict[str, object]) -> Message:
    actor = raw.get("Actor")
    fields = actor if isinstance(actor, dict) else {}
    raw_attributes = fields.get("Attributes")
    attributes = raw_attributes if isinstance(raw_attributes, dict) else {}
    return Message(
        Status=raw.get("status", ""),
        ID=raw.get("id", ""),
        From=raw.get("from", ""),
        Type=raw.get("Type", ""),
        Action=raw.get("Action", ""),
        Actor={"ID": fields.get("ID", ""), "Attributes": Map(attributes)},
        Scope=raw.get("scope", ""),
        Time=raw.get("time", 0),
        TimeNano=raw.get("timeNano", 0),
    )


def _line(raw: dict[str, object]) -> str:
    import time

    message = _message(raw)
    nanos = int(str(message["TimeNano"]))
    local = time.localtime(nanos // 10**9)
    zone = time.strftime("%z", local)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{nanos % 10**9:09d}{zone}"
    actor = message["Actor"]
    attributes = ", ".join(f"{key}={value}" for key, value in sorted(actor["Attributes"].items()))
    line = f"{stamp} {message['Type']} {message['Action']} {actor['ID']}"
    return f"{line} ({attributes})\n" if attributes else f"{line}\n"
