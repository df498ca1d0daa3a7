"""Go's text/template as --format knows it: outputs that Go itself printed, and Go's words for errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dockpy.client.inspect_types import typed
from dockpy.client.template import Template, TemplateError

DATA = {
    "Name": "/web",
    "Id": "abcdef",
    "N": 3,
    "F": 1.5,
    "T": True,
    "Nil": None,
    "Empty": "",
    "Env": ["A=1", "B=2"],
    "Labels": {"b": "2", "a": "1", "x.y": "z"},
    "State": {"Running": True, "Pid": 7, "Health": None},
    "Mounts": [{"Source": "/s", "RW": True}, {"Source": "/t", "RW": False}],
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("{{.Name}}", "/web"),
        ("{{ .State.Pid }}", "7"),
        ("{{.Labels}}", "map[a:1 b:2 x.y:z]"),
        ("{{.Env}}", "[A=1 B=2]"),
        ("{{.Nil}}", "<no value>"),
        ("{{.State}}", "map[Health:<nil> Pid:7 Running:true]"),
        ("{{.F}} {{.T}}", "1.5 true"),
        ('{{index .Labels "x.y"}}', "z"),
        ('{{index .Labels "none"}}|', "|"),
        ("{{index .Env 1}}", "B=2"),
        ("{{(index .Mounts 0).Source}}", "/s"),
        ("{{len .Env}} {{len .Name}} {{len .Labels}}", "2 4 3"),
        ("{{json .Env}}", '["A=1","B=2"]'),
        ("{{json .State}}", '{"Running":true,"Pid":7,"Health":null}'),
        ("{{.Env | json}}", '["A=1","B=2"]'),
        ('{{join .Env ", "}}', "A=1, B=2"),
        ('{{index (split "a:b:c" ":") 2}}', "c"),
        ("{{upper .Id}} {{lower .Id}} {{title .Id}}", "ABCDEF abcdef Abcdef"),
        ("{{truncate .Id 3}}", "abc"),
        ('{{pad "x" 1 2}}|', " x  |"),
        (
            '{{printf "%s is %d, %v, %q, %t" .Id .N .Env .Name .T}}',
            'abcdef is 3, [A=1 B=2], "/web", true',
        ),
        ('{{printf "%5d|%-5s|%05d|%.2f|%x" 3 "a" 42 1.5 255}}', "    3|a    |00042|1.50|ff"),
        ('{{printf "%.3s" .Id}}', "abc"),
        ('{{.Id | printf "%.2s"}}', "ab"),
        ('{{printf "%d" "x"}}', "%!d(string=x)"),
        ('{{printf "%s"}}', "%!s(MISSING)"),
        ('{{print 1 2 "x" "y"}}', "1 2xy"),
        ('{{println "a" 1}}', "a 1\n"),
        ("{{if .T}}yes{{end}}", "yes"),
        ("{{if .Nil}}yes{{else}}no{{end}}", "no"),
        ("{{if .Empty}}a{{else if .T}}b{{else}}c{{end}}", "b"),
        ("{{if and .T .N}}x{{end}}{{if or .Empty .N}}y{{end}}{{if not .Empty}}z{{end}}", "xyz"),
        ("{{and .T .N}} {{or .Empty .Id}}", "3 abcdef"),
        ('{{if eq .Id "abcdef"}}same{{end}}{{if ne .N 3}}other{{end}}', "same"),
        (
            "{{eq .N 1 2 3}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 1.5 1.0}}",
            "true true true false true",
        ),
        ("{{range .Env}}<{{.}}>{{end}}", "<A=1><B=2>"),
        ("{{range $i, $e := .Env}}{{$i}}={{$e}};{{end}}", "0=A=1;1=B=2;"),
        ("{{range $k, $v := .Labels}}{{$k}}:{{$v}} {{end}}", "a:1 b:2 x.y:z "),
        ("{{range .Nil}}x{{else}}none{{end}}", "none"),
        ("{{range .Mounts}}{{if .RW}}{{.Source}}{{end}}{{end}}", "/s"),
        ("{{range .Mounts}}{{$.Name}}{{end}}", "/web/web"),
        ('{{range .Env}}{{if eq . "B=2"}}{{break}}{{end}}{{.}}{{end}}', "A=1"),
        ('{{range .Env}}{{if eq . "A=1"}}{{continue}}{{end}}{{.}}{{end}}', "B=2"),
        ("{{with .State}}{{.Pid}}{{end}}{{with .Nil}}x{{else}}y{{end}}", "7y"),
        ("{{$x := .N}}{{$x}}{{$x = 5}}{{$x}}", "35"),
        ("{{with $x := .Id}}{{$x}}{{end}}", "abcdef"),
        ("a {{- .N -}} b", "a3b"),
        ("a {{/* no */}}b", "a b"),
        ('{{`raw \\n`}}{{"t\\tn"}}', "raw \\nt\tn"),
        ("{{true}} {{1}} {{-2}} {{1.5}}", "true 1 -2 1.5"),
        ("{{slice .Id 1 3}}", "bc"),
        ('{{html "<a>"}} {{urlquery "a b&c"}}', "&lt;a&gt; a+b%26c"),
        ('{{"}}"}}', "}}"),
    ],
)
def test_output(text: str, expected: str) -> None:
    assert Template(text).render(DATA) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{.Foo", "template: :1: unclosed action"),
        ("{{foo}}", 'template: :1: function "foo" not defined'),
        ("{{if}}", "template: :1: missing value for if"),
        ("{{}}", "template: :1: missing value for command"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{range .Env}}", "template: :1: unexpected EOF"),
        ("{{$x}}", 'template: :1: undefined variable "$x"'),
        ("{{(.Env}}", "template: :1: unclosed left paren"),
        ('{{"a}}', "template: :1: unterminated quoted string"),
        ("{{" + "(" * 5000 + ".}}", "template: :1: max expression depth exceeded"),
        ("{{if .T}}" * 5000, "template: :1: max expression depth exceeded"),
    ],
)
def test_a_bad_template_is_refused(text: str, message: str) -> None:
    with pytest.raises(TemplateError) as error:
        Template(text)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{.Foo}}", 'template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"'),
        (
            "{{.State.Foo}}",
            'template: :1:8: executing "" at <.State.Foo>: map has no entry for key "Foo"',
        ),
        (
            "{{index .Nil 0}}",
            'template: :1:2: executing "" at <index .Nil 0>: error calling index: index of untyped nil',
        ),
        (
            "x\n{{len .N}}",
            'template: :2:2: executing "" at <len .N>: error calling len: len of type int',
        ),
        (
            "{{.Id.Foo}}",
            'template: :1:5: executing "" at <.Id.Foo>: can\'t evaluate field Foo in type interface {}',
        ),
        (
            "{{index .Env 7}}",
            'template: :1:2: executing "" at <index .Env 7>: error calling index: index out of range: 7',
        ),
    ],
)
def test_a_template_that_cannot_be_carried_out_says_where(text: str, message: str) -> None:
    with pytest.raises(TemplateError) as error:
        Template(text).render(DATA)
    assert str(error.value) == message


def _docker_said() -> dict[str, Any]:
    text = (Path(__file__).parents[1] / "data" / "templates-docker.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize(("text", "status", "said"), _docker_said()["cases"])
def test_inspect_says_what_docker_said(text: str, status: int, said: str) -> None:
    """Recorded from docker's own client, inspecting the same container: output, or error and exit."""
    try:
        template = Template(text)
    except TemplateError as error:
        assert (64, f"template parsing error: {error}") == (status, said)
        return
    container = _docker_said()["inspect"]
    try:
        try:
            result = template.render(typed(container, "container"))
        except TemplateError:
            result = template.render(container)
    except TemplateError as error:
        assert (1, f"template parsing error: {error}") == (status, said)
    else:
        assert (0, f"{result}\n") == (status, said)
