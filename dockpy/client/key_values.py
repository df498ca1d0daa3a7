"""KEY=VALUE words and files: environment, labels, options. Reads only the files that the flags
name.
"""

from __future__ import annotations

from dockpy.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_FILE = 16 << 20


def check_env(value: str) -> None:
    if not value or value[0] == "=":
        raise ValueError(f"invalid environment variable: {value}")


def check_label(value: str) -> None:
    if not value or value[0] == "=":
        raise ValueError(f"invalid label '{value}': empty name")


def read_lines(path: str) -> list[str]:
    """The meaning lines of an env or label file: comments and blank lines are out, leading white
    space too.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE)
    except OSError as error:
        raise InvalidParameter(f"open {path}: {(error.strerror or '').lower()}") from None
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    kept = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            line = raw.decode()
        except UnicodeDecodeError:
            raise InvalidParameter(
                f"invalid env file ({path}): invalid utf8 bytes at line {number}: {raw!r}"
            ) from None
        line = line[:-1] if line.endswith("\r") else line
        line = line.lstrip()
        if not line or line[0] == "#":
            continue
        name = line.partition("=")[0]
        if not name:
            raise InvalidParameter(f"invalid env file ({path}): no variable name on line '{line}'")
        if any(letter in " \t\n\v\f\r" for letter in name):
            raise InvalidParameter(
                f"invalid env file ({path}): variable '{name}' contains whitespaces"
            )
        kept.append(line)
    return kept


def environment(
    files: Iterable[str], words: Iterable[str], environ: Mapping[str, str]
) -> list[str]:
    """Files first, then words, in order. A bare KEY inherits; unset, it is dropped from a file,
    kept as a word.

    Kept, because the daemon reads a bare KEY as "unset what the image says", docker's own way.
    """
    result = []
    for path in files:
        for line in read_lines(path):
            if "=" in line:
                result.append(line)
            elif line in environ:
                result.append(f"{line}={environ[line]}")
    for word in words:
        result.append(word if "=" in word or word not in environ else f"{word}={environ[word]}")
    return result


def mapping(words: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for word in words:
        name, _, value = word.partition("=")
        pairs[name] = value
    return pairs


def labels(files: Iterable[str], words: Sequence[str]) -> dict[str, str]:
    lines = []
    for path in files:
        lines += read_lines(path)
    return mapping([*lines, *words])


def proxies(config: Mapping[str, object], host: str) -> dict[str, str]:
    """The variables that the client's config.json wants set in every container (for this host, else
    default).
    """
    table = config.get("proxies")
    if not isinstance(table, dict):
        return {}
    chosen = table.get(host) or table.get("default")
    if not isinstance(chosen, dict):
        return {}
    found = {}
    for key, name in (
        ("httpProxy", "HTTP_PROXY"),
        ("httpsProxy", "HTTPS_PROXY"),
        ("ftpProxy", "FTP_PROXY"),
        ("noProxy", "NO_PROXY"),
        ("allProxy", "ALL_PROXY"),
    ):
        value = chosen.get(key)
        if isinstance(value, str) and value:
            found[name] = value
            found[name.lower()] = value
    return found
