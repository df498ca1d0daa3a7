"""Lists of things as docker prints them: the default table, `--format table …`, a template a line,
or JSON lines.
"""

from __future__ import annotations

from dockpy.client.errors import CommandError
from dockpy.client.output import columns, out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEAST = 10  # docker's narrowest column


class Row(dict):  # type: ignore[type-arg]  # dict[str, object], which is no base class at run time before 3.9
    """The fields of one thing, under docker's names; a template that asks for another one is wrong."""

    go_type = "*formatter.Context"
    by_name = True  # how `json` orders it


def show(
    form: str, default: Sequence[str], headers: Mapping[str, str], rows: Sequence[Row]
) -> None:
    out(text(form, default, headers, rows))


def text(form: str, default: Sequence[str], headers: Mapping[str, str], rows: Sequence[Row]) -> str:
    if form in ("", "table"):
        lines = [[headers[name] for name in default]]
        lines += [[str(row[name]) for name in default] for row in rows]
        return columns(lines, 3, LEAST)
    from dockpy.client.template import Template, TemplateError
    from dockpy.client.template_functions import HEADER, to_json

    if form == "json":
        return _lines([_html_safe(to_json(row)) for row in rows])
    table = form.startswith("table")
    source = (form[5:] if table else form).strip(" ")
    try:
        template = Template(source.replace("\\t", "\t").replace("\\n", "\n"))
    except TemplateError as error:
        raise CommandError(f"failed to parse template: {error}") from None
    try:
        texts = [template.render(row) for row in rows]
        if table:
            heading = Row(headers)
            heading["Label"] = lambda key: (
                str(key).rpartition(".")[2].replace("-", " ").replace("_", " ").upper()
            )
            heading.by_name = False
            texts.insert(0, template.render(heading, HEADER))
    except TemplateError as error:
        raise CommandError(f"failed to execute template: {error}") from None
    if table:
        width = max(line.count("\t") for line in texts) + 1
        cells = [line.split("\t") for line in texts]
        if width > 1:
            return columns([row + [""] * (width - len(row)) for row in cells], 3, LEAST)
    return _lines(texts)


def _html_safe(text: str) -> str:
    """Go's plain Marshal escapes these; docker's `json` function does not."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _lines(texts: Sequence[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def uses(form: str, name: str) -> bool:
    """Whether a template asks for the field `name`."""
    if name not in form:
        return False
    from dockpy.client.template import Template, TemplateError

    try:
        return name in Template(form[6:] if form.startswith("table ") else form).fields()
    except TemplateError:
        return False


def filters(words: Sequence[str]) -> dict[str, list[str]]:
    """`--filter key=value` words as the API's filters."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise CommandError(
                'invalid argument "'
                + word
                + '" for "-f, --filter" flag: invalid filter \''
                + word
                + "'",
                125,
            )
        values = found.setdefault(name.strip().lower(), [])
        if value.strip() not in values:
            values.append(value.strip())
    return found


def query_filters(words: Sequence[str]) -> str:
    if not words:
        return ""
    from dockpy import fastjson

    return fastjson.dumps(
        {name: dict.fromkeys(values, True) for name, values in filters(words).items()}
    ).decode()


def check_filter(value: str) -> None:
    if "=" not in value:
        raise ValueError(f"invalid filter '{value}'")
