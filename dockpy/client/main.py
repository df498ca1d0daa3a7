"""From argv to an exit code: global flags, the choice of the command, and docker's words for what
went wrong.
"""

from __future__ import annotations

import os
import sys

from dockpy.client.catalog import COMMANDS, GLOBAL, GROUPS, LONG, NOT_SERVED
from dockpy.client.errors import CommandError
from dockpy.client.flags import FlagError, HelpWanted, Options, parse, table
from dockpy.client.output import err, out
from dockpy.errors import DockpyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dockpy.client.connection import Connection

    Handler = Callable[["Cli", Options, list[str]], int]

_RUN_LIKE = ("run", "create")


class Cli:
    """What every command needs: the environment, the client's configuration, the daemon."""

    def __init__(self, environ: Mapping[str, str], options: Options) -> None:
        self.environ = environ
        self.debug = options.on("debug")
        self.folder = options.text("config") or environ.get("DOCKER_CONFIG", "")
        hosts = options.many("host")
        if len(hosts) > 1:
            raise CommandError("specify only one -H", 1)
        self.host = hosts[0] if hosts else environ.get("DOCKER_HOST", "")
        context = options.text("context") or environ.get("DOCKER_CONTEXT", "")
        if context and hosts:
            raise CommandError("conflicting options: cannot specify both --host and --context", 1)
        if context == "default":
            self.host = self.host if hosts else ""
        elif context and not self.host:
            raise CommandError(
                f'context "{context}" is not known: only "default" is served by this build', 1
            )
        if self.host and "://" not in self.host:
            self.host = f"unix://{self.host}" if self.host.startswith("/") else f"tcp://{self.host}"
        self._connection: Connection | None = None
        self._config: dict[str, object] | None = None
        self.spelled = ""

    @property
    def connection(self) -> Connection:
        if self._connection is None:
            from dockpy.client.connection import Connection, Endpoint

            self._connection = Connection(Endpoint(self.host, self.environ), self._headers)
        return self._connection

    @property
    def own_daemon(self) -> bool:
        return not self.host

    @property
    def config(self) -> dict[str, object]:
        """~/.docker/config.json, or what --config and DOCKER_CONFIG name; empty when there is none."""
        if self._config is None:
            self._config = self._read_config()
        return self._config

    @property
    def config_path(self) -> str:
        from dockpy.paths import NoHome, home

        try:
            folder = self.folder or os.path.join(home(self.environ, os.geteuid()), ".docker")
        except NoHome as error:
            raise CommandError(str(error)) from None
        return os.path.join(folder, "config.json")

    def _read_config(self) -> dict[str, object]:
        from dockpy import fastjson

        try:
            path = self.config_path
            with open(path, "rb") as file:
                raw = fastjson.loads(file.read(1 << 20))
        except (CommandError, FileNotFoundError):
            return {}
        except OSError as error:
            why = (error.strerror or "").lower()
            err(f"WARNING: Error loading config file: open {path}: {why}\n")
            return {}
        except ValueError as error:
            err(f"WARNING: Error loading config file: {path}: {error}\n")
            return {}
        return raw if isinstance(raw, dict) else {}

    def _headers(self) -> dict[str, str]:
        named = self.config.get("HttpHeaders")
        return (
            {str(name): str(value) for name, value in named.items()}
            if isinstance(named, dict)
            else {}
        )


def main(argv: Sequence[str]) -> int:
    """One command; `argv` is without the program's name."""
    try:
        return _main(list(argv))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _end_by_sigpipe()
        return 141


def _end_by_sigpipe() -> None:
    """As every other program does whose reader is gone; Python began by ignoring the signal."""
    from dockpy.client.signals import die_of_sigpipe

    die_of_sigpipe()


def _main(words: list[str]) -> int:
    try:
        options, words = (
            parse(table(GLOBAL), words, interspersed=False)
            if _globals(words)
            else (Options(), words)
        )
    except HelpWanted:
        return _print_help("")
    except FlagError as error:
        err(
            f"{error}\n\nUsage:  dockpy [OPTIONS] COMMAND [ARG...]\n\nRun 'dockpy --help' for more information\n"
        )
        return 125
    if options.on("version"):
        from dockpy import __version__

        out(f"Docker version {__version__}, build dockpy\n")
        return 0
    for name in ("tls", "tlsverify", "tlscacert", "tlscert", "tlskey"):
        if options.given(name) and options.text(name) != "false":
            err(f"docker: --{name} is not served by this build: the daemon is a socket of yours\n")
            return 125
    if options.on("help") or not words:
        return _print_help("")
    if words[0] == "help":
        return _help(words[1:])
    command, spelled, words = _choose(words)
    if not command:
        return _group(spelled, words)
    return _run(command, spelled, words, options)


def _globals(words: list[str]) -> bool:
    return bool(words) and words[0][:1] == "-"


def _choose(words: list[str]) -> tuple[str, str, list[str]]:
    """(command, as it was spelled, the words after it); command "" when there is none."""
    first = words[0]
    if first in LONG:
        if len(words) > 1 and words[1] in LONG[first]:
            return LONG[first][words[1]], f"{first} {words[1]}", words[2:]
        return "", first, words[1:]
    if first in COMMANDS:
        return first, first, words[1:]
    return "", "", words


def _group(group: str, words: list[str]) -> int:
    """A group alone prints its help; anything else here is unknown, or known and not served."""
    if group and (not words or words[0] in ("--help", "-h", "help")):
        return _print_help(group)
    name = f"{group} {words[0]}".strip()
    if group and words[0].startswith("-"):
        err(_flag_text(FlagError(f"unknown flag: {words[0]}"), f"Usage:  dockpy {group}", group))
        return 125
    if words[0] in NOT_SERVED or (group and words[0] == "prune"):
        err(f"docker: 'dockpy {name}' is not served by this build\n")
        return 1
    head = f"docker: unknown command: dockpy {name}\n\n"
    if group:
        err(f"{head}Usage:  dockpy {group}\n\nRun 'dockpy {group} --help' for more information\n")
    else:
        err(f"{head}Run 'dockpy --help' for more information\n")
    return 1


def _help(words: list[str]) -> int:
    if not words:
        return _print_help("")
    command, spelled, _ = _choose(words)
    if not command and spelled not in GROUPS:
        err(f"docker: unknown help topic: {' '.join(words)}\n")
        return 1
    return _print_help(spelled, command)


def _print_help(spelled: str, command: str = "") -> int:
    from dockpy.client import help

    if command:
        out(help.of_command(command, spelled))
    else:
        out(help.of_group(spelled) if spelled else help.of_program())
    return 0


def _flag_text(error: Exception, usage: str, spelled: str) -> str:
    return f"{error}\n\n{usage}\n\nRun 'dockpy {spelled} --help' for more information\n"


def _run(command: str, spelled: str, words: list[str], globals_: Options) -> int:
    module_name, least, most, usage, _, flag_text = COMMANDS[command]
    module = __import__(f"dockpy.client.commands.{module_name}", fromlist=["*"])
    line = f"Usage:  dockpy {spelled} {usage.lstrip('-')}".rstrip()
    try:
        options, positional = parse(
            table(flag_text),
            words,
            interspersed=usage[:1] != "-",
            checks=getattr(module, "CHECKS", None),
        )
        if options.on("help"):
            raise HelpWanted
    except HelpWanted:
        return _print_help(spelled, command)
    except FlagError as error:
        err(_flag_text(error, line, spelled))
        return 125
    if not least <= len(positional) <= (most if most >= 0 else len(positional)):
        see = "See" if most != least else "Run"
        err(f"docker: 'dockpy {spelled}' {_wanted(least, most)}\n\n{line}\n\n")
        err(f"{see} 'dockpy {spelled} --help' for more information\n")
        return 1
    try:
        cli = Cli(os.environ, globals_)
        cli.spelled = spelled
        handler: Handler = getattr(module, command.replace(" ", "_").replace("-", "_") + "_command")
        return handler(cli, options, positional)
    except CommandError as error:
        return _tell(command, spelled, str(error), error.code)
    except BrokenPipeError:
        raise
    except DockpyError as error:
        return _tell(command, spelled, str(error), 125 if command in _RUN_LIKE else 1)
    except OSError as error:
        name = error.filename
        place = os.fsdecode(name) + ": " if isinstance(name, (str, bytes)) and name else ""
        text = f"{place}{error.strerror}"
        return _tell(command, spelled, text, 125 if command in _RUN_LIKE else 1)


def _tell(command: str, spelled: str, message: str, code: int) -> int:
    if message and command in _RUN_LIKE and code in (125, 126, 127):
        err(f"docker: {message}\n\nRun 'dockpy {spelled} --help' for more information\n")
    elif message:
        err(f"{message}\n")
    return code


def _wanted(least: int, most: int) -> str:
    """cobra's sentence about the number of arguments, as docker words it."""

    def plural(number: int) -> str:
        return "argument" if number == 1 else "arguments"

    if most == 0:
        return "accepts no arguments"
    if most < 0:
        return f"requires at least {least} {plural(least)}"
    if least == most:
        return f"requires {least} {plural(least)}"
    if least == 0:
        return f"requires at most {most} {plural(most)}"
    return f"requires at least {least} and at most {most} arguments"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
