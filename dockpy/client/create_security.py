"""`--security-opt` of `run` and `create`. Imported when it is given."""

from __future__ import annotations


def security_options(words: list[str]) -> tuple[list[str], bool]:
    """(SecurityOpt, systempaths unconfined). A seccomp profile is read here: the daemon sees no
    files of ours.
    """
    kept, unconfined = [], False
    for word in words:
        if word == "systempaths=unconfined":
            unconfined = True
            continue
        name, equals, value = word.partition("=")
        if not equals and word != "no-new-privileges":
            name, equals, value = word.partition(":")
            if not equals:
                raise ValueError(f'Invalid --security-opt: "{word}"')
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            word = f"seccomp={_profile(value)}"
        kept.append(word)
    return kept, unconfined


def _profile(path: str) -> str:
    from dockpy import fastjson

    try:
        with open(path, "rb") as file:
            data = file.read(16 << 20)
    except OSError as error:
        reason = f"open {path}: {(error.strerror or '').lower()}"
        raise ValueError(f"opening seccomp profile ({path}) failed: {reason}") from None
    try:
        return fastjson.dumps(fastjson.loads(data)).decode()
    except ValueError as error:
        raise ValueError(f"compacting json for seccomp profile ({path}) failed: {error}") from None
