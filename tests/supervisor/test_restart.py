"""docker's rules of restart policies, as values."""

from __future__ import annotations

import pathlib

import pytest

from dockpy.api.container import RestartPolicy
from dockpy.errors import InvalidParameter
from dockpy.supervisor import restart
from dockpy.supervisor.records import State


@pytest.mark.parametrize(
    ("policy", "state", "code", "again"),
    [
        (RestartPolicy("no"), State(), 1, False),
        (RestartPolicy(""), State(), 1, False),
        (RestartPolicy("always"), State(), 0, True),
        (RestartPolicy("always"), State(stopped=True), 0, False),
        (RestartPolicy("unless-stopped"), State(), 0, True),
        (RestartPolicy("unless-stopped"), State(stopped=True), 1, False),
        (RestartPolicy("on-failure"), State(), 0, False),
        (RestartPolicy("on-failure"), State(restarts=1000), 3, True),
        (RestartPolicy("on-failure", 2), State(restarts=1), 3, True),
        (RestartPolicy("on-failure", 2), State(restarts=2), 3, False),
    ],
)  # fmt: skip
def test_whether_a_container_comes_back(
    policy: RestartPolicy, state: State, code: int, again: bool
) -> None:
    assert restart.again(policy, state, code) is again


def test_the_back_off_doubles_up_to_a_minute_and_forgets_after_a_run_of_ten_seconds() -> None:
    delays, delay = [], 0.0
    for _ in range(12):
        delay = restart.back_off(delay, 0.5)
        delays.append(round(delay, 1))
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]
    assert restart.back_off(60.0, 9.9) == 60.0
    assert restart.back_off(60.0, 10.0) == 0.1


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (RestartPolicy("sometimes"), "unknown policy 'sometimes'"),
        (RestartPolicy("always", 3), "can only be used with 'on-failure'"),
        (RestartPolicy("on-failure", -1), "cannot be negative"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(policy: RestartPolicy, text: str) -> None:
    with pytest.raises(InvalidParameter, match=text):
        restart.check(policy)


def test_a_start_is_told_from_a_revival_by_a_note(tmp_path: pathlib.Path) -> None:
    session = str(tmp_path / "session")
    assert restart.is_start(session, "boot-1") is True
    assert restart.is_start(session, "boot-1") is False
    assert restart.is_start(session, "boot-2") is True
    restart.end_session(session)
    assert restart.is_start(session, "boot-2") is True
    (tmp_path / "session").write_bytes(b"")
    restart.end_session(session)
    assert restart.is_start(session, "boot-2") is True
    assert restart.is_start(session, "boot-2") is False


def test_where_no_note_can_be_written_nothing_is_a_start(tmp_path: pathlib.Path) -> None:
    """What a user has stopped would be started by each daemon again."""
    assert restart.is_start(str(tmp_path / "nowhere" / "session"), "boot") is False
