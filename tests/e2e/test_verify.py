"""`image verify`: a pushed image, signed by openssl as cosign signs, verified by the built file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.engines import Engine
from tests.images.signatures import Key, payload, put
from tests.registry.serving import Serving


def test_a_signature_is_verified_or_told_what_is_wrong(
    engine: Engine, folder: Path, tmp_path: Path
) -> None:
    if not engine.is_dockpy:
        pytest.skip("docker has no image verify")
    serving = Serving(tmp_path / "registry")
    try:
        repository = f"{serving.address}/team/app"
        name = f"{repository}:v1"
        engine.cli("tag", engine.image, name)
        assert engine.cli("push", "-q", name).code == 0
        shown = engine.cli("inspect", "-f", '{{join .RepoDigests " "}}', name).out.split()
        by_digest = next(one for one in shown if one.startswith(f"{repository}@"))
        digest = by_digest.partition("@")[2]
        mine, other = Key(folder, "cosign"), Key(folder, "other")

        def verify(key: str, image: str = name) -> tuple[int, str, str]:
            done = engine.cli("image", "verify", "--key", key, image)
            return done.code, done.out, done.err

        code, out, err = verify(str(mine.path))
        assert (code, out) == (1, "")
        assert (
            err
            == f"Error response from daemon: {name} is not signed: no cosign signature was found\n"
        )
        signed = payload(repository, digest)
        put(serving, "team/app", digest, (signed, mine.sign(signed)))
        told = f"Verified {by_digest}\n1 signature by the key {mine.path}\n"
        assert verify(str(mine.path)) == verify(str(mine.path), by_digest) == (0, told, "")
        code, out, err = verify(str(other.path))
        assert (code, out) == (1, "") and "it was made by another key, or its payload" in err
        assert "cannot be read: No such file" in verify("/nonexistent/cosign.pub")[2]
        assert "not a public key in PEM" in verify("/proc/self/cmdline")[2]
        assert "--key is needed" in engine.cli("image", "verify", name).err
        engine.cli("rmi", name)
    finally:
        serving.kill()
