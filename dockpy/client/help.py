"""Help and usage texts in docker's shape, made from the catalog. Imported only when they are
wanted.
"""

from __future__ import annotations

from dockpy.client.catalog import COMMANDS, GLOBAL, GROUPS, LONG
from dockpy.client.flags import Flag, table

WIDTH = 80
_COMMON = ("run", "exec", "ps", "pull", "images", "version", "info")


def wrap(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def flag_lines(flags: list[Flag], width: int = WIDTH) -> list[str]:
    """One flag a line, values named, descriptions aligned and wrapped."""
    left = []
    for flag in flags:
        short = f"-{flag.short}, " if flag.short else "    "
        kind = "" if flag.kind == "bool" else f" {flag.kind}"
        left.append(f"  {short}--{flag.long}{kind}")
    column = max(len(text) for text in left) + 3
    lines = []
    for text, flag in zip(left, flags):
        wrapped = wrap(flag.text, max(width - column, 24))
        lines.append(f"{text:<{column}}{wrapped[0]}")
        lines += [" " * column + more for more in wrapped[1:]]
    return lines


def spellings(command: str) -> list[str]:
    """All ways to say `command`, as docker lists them under Aliases."""
    found = [
        f"{group} {verb}"
        for group, verbs in LONG.items()
        for verb, name in verbs.items()
        if name == command
    ]
    return [*found, command] if command in COMMANDS and command not in found else found


def usage(command: str, spelled: str) -> str:
    return f"Usage:  dockpy {spelled} {COMMANDS[command][3].lstrip('-')}".rstrip()


def of_command(command: str, spelled: str) -> str:
    _, _, _, _, summary, text = COMMANDS[command]
    lines = [usage(command, spelled), "", summary]
    names = spellings(command)
    if len(names) > 1:
        lines += ["", "Aliases:", "  " + ", ".join(f"dockpy {name}" for name in names)]
    flags = table(text)
    if flags:
        lines += ["", "Options:", *flag_lines(flags)]
    return "\n".join(lines) + "\n"


def _listing(rows: list[tuple[str, str]]) -> list[str]:
    return [f"  {name:<11} {summary}" for name, summary in rows]


def of_group(group: str) -> str:
    rows = {}
    for name in LONG[group].values():
        verb = next(verb for verb, target in LONG[group].items() if target == name)
        rows[verb] = COMMANDS[name][4]
    lines = [
        f"Usage:  dockpy {group} COMMAND",
        "",
        GROUPS[group],
        "",
        "Commands:",
        *_listing(sorted(rows.items())),
    ]
    lines += ["", f"Run 'dockpy {group} COMMAND --help' for more information on a command."]
    return "\n".join(lines) + "\n"


def of_program() -> str:
    others = sorted(
        (name, entry[4])
        for name, entry in COMMANDS.items()
        if " " not in name and name not in _COMMON
    )
    lines = [
        "Usage:  dockpy [OPTIONS] COMMAND",
        "",
        "Docker in one Python file",
        "",
        "Common Commands:",
    ]
    lines += _listing([(name, COMMANDS[name][4]) for name in _COMMON])
    lines += ["", "Management Commands:", *_listing(sorted(GROUPS.items()))]
    lines += ["", "Commands:", *_listing(others), "", "Global Options:", *flag_lines(table(GLOBAL))]
    lines += ["", "Run 'dockpy COMMAND --help' for more information on a command."]
    return "\n".join(lines) + "\n"
