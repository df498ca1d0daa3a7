"""docker's rules of health checks, as values."""

from __future__ import annotations

import pathlib

import pytest

from dockpy.api.container import Healthcheck
from dockpy.errors import InvalidParameter
from dockpy.supervisor import health
from dockpy.supervisor.health import HEALTHY, STARTING, UNHEALTHY, Health, Result

S = 1_000_000_000
BAD, GOOD = Result("a", "b", 1, "no"), Result("a", "b", 0, "yes")


@pytest.mark.parametrize(
    ("test", "shell", "argv"),
    [
        (("CMD", "a", "b"), (), ("a", "b")),
        (("CMD-SHELL", "a b"), (), ("/bin/sh", "-c", "a b")),
        (("CMD-SHELL", "a b"), ("/bin/bash", "-ec"), ("/bin/bash", "-ec", "a b")),
        (("NONE",), (), None),
        ((), (), None),
        (None, (), None),
        (("CMD",), (), None),
        (("OTHER", "x"), (), None),
    ],
)
def test_what_a_probe_runs(
    test: tuple[str, ...] | None, shell: tuple[str, ...], argv: tuple[str, ...] | None
) -> None:
    assert health.command(Healthcheck(test), shell) == argv


def test_the_times_between_probes() -> None:
    config = Healthcheck(("CMD", "x"), 7 * S, 0, 20 * S, 2 * S, 0)
    assert health.interval(config, STARTING, 1.0) == 2
    assert health.interval(config, STARTING, 20.0) == 7
    assert health.interval(config, HEALTHY, 1.0) == 7
    assert health.interval(Healthcheck(("CMD", "x")), STARTING, 0.0) == 30
    assert health.interval(Healthcheck(("CMD", "x"), start_period=S), STARTING, 0.0) == 5


def test_failures_count_up_to_the_retries_and_one_success_forgives() -> None:
    config = Healthcheck(("CMD", "x"), retries=2)
    one = health.after(Health(), config, BAD, 5.0)
    assert (one.status, one.streak) == (STARTING, 1)
    two = health.after(one, config, BAD, 5.0)
    assert (two.status, two.streak) == (UNHEALTHY, 2)
    three = health.after(two, config, GOOD, 5.0)
    assert (three.status, three.streak) == (HEALTHY, 0)


def test_failures_in_the_start_period_do_not_count() -> None:
    config = Healthcheck(("CMD", "x"), start_period=10 * S, retries=1)
    early = health.after(Health(), config, BAD, 9.0)
    assert (early.status, early.streak, len(early.log)) == (STARTING, 0, 1)
    assert health.after(early, config, BAD, 10.0).status == UNHEALTHY
    # Once healthy it has started, whatever the period says.
    well = health.after(early, config, GOOD, 3.0)
    assert health.after(well, config, BAD, 4.0).status == UNHEALTHY


def test_five_results_are_kept_on_disk_too(tmp_path: pathlib.Path) -> None:
    known = Health(due=3.5, boot="b", probing="e")
    for code in range(7):
        known = health.after(
            known, Healthcheck(("CMD", "x")), Result("a", "b", code, f"{code}"), 5.0
        )
    assert [result.code for result in known.log] == [2, 3, 4, 5, 6]
    health.save(str(tmp_path), known)
    assert health.load(str(tmp_path)) == known
    (tmp_path / "health.json").write_text("{")
    with pytest.raises(InvalidParameter, match="not JSON"):
        health.load(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (Healthcheck(interval=1), "Interval in Healthcheck cannot be less than 1ms"),
        (Healthcheck(timeout=-S), "Timeout in Healthcheck cannot be less than 1ms"),
        (Healthcheck(start_period=1), "StartPeriod in Healthcheck cannot be less than 1ms"),
        (Healthcheck(start_interval=1), "StartInterval in Healthcheck cannot be less than 1ms"),
        (Healthcheck(retries=-1), "Retries in Healthcheck cannot be negative"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(config: Healthcheck, text: str) -> None:
    with pytest.raises(InvalidParameter, match=text):
        health.check(config)
