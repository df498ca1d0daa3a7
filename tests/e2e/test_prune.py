"""`system df` and `container prune`. Always by label: the engine may serve others."""

from __future__ import annotations

from tests.e2e.engines import Engine


def test_prune_removes_what_is_stopped_and_has_the_label(engine: Engine) -> None:
    gone, kept = engine.name(), engine.name()
    label = f"of={gone}"
    made = engine.cli("create", "--name", gone, "--label", label, engine.image, "true").out.strip()
    engine.cli("create", "--name", kept, engine.image, "true")
    refused = engine.cli("container", "prune", "--filter", f"label={label}", input=b"n\n")
    assert "WARNING! This will remove all stopped containers." in refused.out
    assert engine.cli("inspect", gone).code == 0
    pruned = engine.cli("container", "prune", "-f", "--filter", f"label={label}")
    assert f"Deleted Containers:\n{made}\n" in pruned.out
    assert "Total reclaimed space: " in pruned.out
    assert (engine.cli("inspect", gone).code, engine.cli("inspect", kept).code) == (1, 0)
    assert engine.cli("rm", kept).code == 0


def test_system_df_has_docker_s_rows(engine: Engine) -> None:
    rows = engine.cli("system", "df", "--format", "{{.Type}}").out
    assert rows == "Images\nContainers\nLocal Volumes\nBuild Cache\n"
    assert engine.cli("system", "df", "-v").out.startswith("Images space usage:\n\n")
