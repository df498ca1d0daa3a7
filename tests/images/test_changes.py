"""dockpy/images/changes.py: each instruction in its forms, and docker's refusals."""

from __future__ import annotations

import pytest

from dockpy.errors import InvalidParameter
from dockpy.images.changes import apply
from dockpy.oci.image import ContainerConfig

START = ContainerConfig(env=("PATH=/bin", "A=old"), working_dir="/srv", labels={"k": "v"})


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ('CMD ["a", "b c"]', "cmd", ("a", "b c")),
        ("CMD a  b", "cmd", ("/bin/sh", "-c", "a  b")),
        ("cmd [broken", "cmd", ("/bin/sh", "-c", "[broken")),
        ("CMD []", "cmd", ()),
        ('ENTRYPOINT ["/x"]', "entrypoint", ("/x",)),
        ("ENTRYPOINT x y", "entrypoint", ("/bin/sh", "-c", "x y")),
        ("ENTRYPOINT []", "entrypoint", None),
        ("ENV A=new B=2", "env", ("PATH=/bin", "A=new", "B=2")),
        ("ENV B two  words", "env", ("PATH=/bin", "A=old", "B=two  words")),
        ('ENV B="x y" C=\\ z', "env", ("PATH=/bin", "A=old", "B=x y", "C= z")),
        ("ENV PATH=$PATH:/x", "env", ("PATH=/bin:/x", "A=old")),
        ("ENV B=${A}/${NO:-d}${A:+p}", "env", ("PATH=/bin", "A=old", "B=old/dp")),
        ("ENV B='$A' C=\"$A\"", "env", ("PATH=/bin", "A=old", "B=$A", "C=old")),
        ("ENV B=a\\\n  C=d", "env", ("PATH=/bin", "A=old", "B=a", "C=d")),
        ("ENV B=", "env", ("PATH=/bin", "A=old", "B=")),
        ("EXPOSE 80 53/udp 8000-8002", "exposed_ports", None),
        ("EXPOSE 80/TCP", "exposed_ports", ("80/tcp",)),
        ('LABEL a=b "c d"="e f"', "labels", {"k": "v", "a": "b", "c d": "e f"}),
        ("USER app:staff", "user", "app:staff"),
        ("VOLUME /a /b", "volumes", ("/a", "/b")),
        ('VOLUME ["/a b"]', "volumes", ("/a b",)),
        ("WORKDIR /x/../y", "working_dir", "/y"),
        ("WORKDIR deeper", "working_dir", "/srv/deeper"),
        ("STOPSIGNAL SIGQUIT", "stop_signal", "SIGQUIT"),
        ("STOPSIGNAL 3", "stop_signal", "3"),
        ("STOPSIGNAL SIGRTMIN+3", "stop_signal", "SIGRTMIN+3"),
        ("ONBUILD RUN x", "on_build", ("RUN x",)),
        ('SHELL ["/bin/bash", "-c"]', "shell", ("/bin/bash", "-c")),
        ("# a comment\n\nUSER x", "user", "x"),
    ],
)
def test_an_instruction(change: str, field: str, value: object) -> None:
    config = apply(START, [change])
    if value is None and field == "exposed_ports":
        value = ("80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp")
    assert getattr(config, field) == value


def test_later_changes_see_earlier_ones() -> None:
    config = apply(START, ['SHELL ["/bin/bash", "-c"]', "CMD x", "WORKDIR a", "WORKDIR b"])
    assert config.cmd == ("/bin/bash", "-c", "x")
    assert config.working_dir == "/srv/a/b"


def test_healthcheck() -> None:
    change = "HEALTHCHECK --interval=1m30s --timeout=3s --start-period=500ms --retries=4 CMD curl x"
    check = apply(START, [change]).healthcheck
    assert check is not None
    assert check.test == ("CMD-SHELL", "curl x")
    assert (check.interval, check.timeout, check.start_period, check.retries) == (
        90 * 10**9,
        3 * 10**9,
        5 * 10**8,
        4,
    )
    none = apply(START, ["HEALTHCHECK NONE"]).healthcheck
    assert none is not None and none.test == ("NONE",)
    listed = apply(START, ['HEALTHCHECK CMD ["a", "b"]']).healthcheck
    assert listed is not None and listed.test == ("CMD", "a", "b")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("NONSENSE x", "NONSENSE is not a valid change command"),
        ("FROM scratch", "FROM is not a valid change command"),
        ("RUN x", "RUN is not a valid change command"),
        ("CMD", "CMD requires at least one argument"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=b C", "can't find = in 'C'"),
        ("ENV A='b", "unexpected end of statement"),
        ("EXPOSE x", "invalid containerPort: x"),
        ("EXPOSE 0", "invalid containerPort"),
        ("EXPOSE 9-8", "invalid containerPort"),
        ("EXPOSE 99999", "invalid containerPort"),
        ("USER a b", "USER requires exactly one argument"),
        ('VOLUME [""]', "VOLUME specified can not be an empty string"),
        ("STOPSIGNAL SIGNOT", "invalid signal: SIGNOT"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("SHELL /bin/sh", "SHELL requires the arguments to be in JSON form"),
        ("HEALTHCHECK FOO", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --every=1s CMD x", "unknown flag: every"),
        ("HEALTHCHECK --interval=soon CMD x", 'invalid duration "soon"'),
        ("HEALTHCHECK --interval=1us CMD x", "cannot be less than 1ms"),
    ],
)
def test_a_refusal(change: str, told: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        apply(START, [change])
    assert told in str(caught.value)
