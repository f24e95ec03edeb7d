# SPDX-License-Identifier: Apache-2.0
"""What all commands share: finding the command, parsing its flags, and errors in one clear line."""

import importlib
import logging
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TypeVar

from absl import app, flags

_HELP = {"--help", "-h", "-help", "--helpshort"}
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error, and the libraries' own log.")


def _print_help(program: str, command: ModuleType) -> None:
    """Prints what a command does and its flags, which absl would do for the main module only."""
    print(f"{program} [flags]\n\n{command.__doc__}")
    package = command.__name__.split(".")[0]
    shared = [x.__name__ for x in vars(command).values() if isinstance(x, ModuleType)]
    own = [name for name in shared if name.split(".")[0] == package and name != command.__name__]
    for module in (command.__name__, *own, __name__):
        for flag in sorted(flags.FLAGS.flags_by_module_dict().get(module, ()), key=lambda flag: flag.name):
            default = "" if flag.default in (None, False) else f" (default: {flag.default_as_str})"
            text = f"{flag.help}{default}"
            print(textwrap.fill(text, 100, initial_indent=f"  --{flag.name}: ", subsequent_indent="      "))


def _parse(program: str, module: str, argv: Sequence[str]) -> tuple[Callable[[list[str]], int], list[str]]:
    """Returns the command's main function and the arguments that are no flags."""
    app.define_help_flags()
    try:
        # Importing the module parses `--config.x` already, and a config file runs while flags are parsed.
        command = importlib.import_module(module)
        if _HELP & set(argv[1:]):
            _print_help(program, command)
            sys.exit(0)
        return command.main, flags.FLAGS(argv)[1:]
    except (flags.Error, ValueError, TypeError, AttributeError, KeyError, OSError, ImportError, SyntaxError) as error:
        if "--debug" in argv:
            raise
        print(f"{program}: {_one_line(error)} (--help lists the flags)", file=sys.stderr)
        sys.exit(2)


Config = TypeVar("Config")


def typed_config(value: object, kind: type[Config], *, field: str) -> Config:
    """Returns the value of a `--config` flag after checking its type.

    Args:
        value: of the flag.
        kind: the dataclass that it must be.
        field: one of the dataclass's fields.

    Raises:
        ValueError: where the config file returned something else.
        OSError: where there was no config file.
    """
    if not isinstance(value, kind):
        # For a missing file ml_collections puts an object in place that raises the error when it is used.
        getattr(value, field, None)
        raise ValueError(f"--config must return a {kind.__name__}, got a {type(value).__name__}")
    return value


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__


def run(program: str, commands: Mapping[str, tuple[str, str]], argv: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names, and exits.

    A command's module has `main(arguments) -> int`, called with the arguments that are no flags. Errors that users can
    cause are ValueError, OSError and MemoryError: they end in one line and exit code 1; any other is told as a defect.

    Args:
        program: how the user calls it.
        commands: name to (module, one line of what it does).
        argv: the process's arguments; None takes `sys.argv`.
    """
    argv = list(sys.argv if argv is None else argv)
    if len(argv) < 2 or argv[1] not in commands:
        asked = len(argv) > 1 and argv[1] in ("help", "--help", "-h")
        lines = [f"usage: {program} COMMAND [flags]"] + [f"  {name:8} {what}" for name, (_, what) in commands.items()]
        if len(argv) > 1 and not asked:
            lines.insert(0, f"{program}: unknown command {argv[1]!r}")
        print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)
    program = f"{program} {argv[1]}"
    # XLA and TSL write start-up notes straight to stderr, between the lines that a person should read.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main, arguments = _parse(program, commands[argv[1]][0], [program, *argv[2:]])
    logging.getLogger("absl").setLevel(logging.INFO if _DEBUG.value else logging.ERROR)
    logging.getLogger("jax").setLevel(logging.INFO if _DEBUG.value else logging.ERROR)
    try:
        sys.exit(main(arguments))
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if _DEBUG.value:
            traceback.print_exc()
        elif isinstance(error, ValueError | OSError | MemoryError):
            print(f"{program}: {_one_line(error)}", file=sys.stderr)
        else:
            what = f"{type(error).__name__}: {_one_line(error)}"
            print(f"{program}: unexpected {what}; --debug shows where, please report it", file=sys.stderr)
        sys.exit(1)
