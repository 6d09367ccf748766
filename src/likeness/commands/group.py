"""Parsing and errors of the command line: global options anywhere, one format for all errors."""

import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer._click.exceptions import BadParameter, ClickException, MissingParameter
from typer.core import TyperGroup

from ..config import Settings
from ..errors import Interrupted, LikenessError, OutOfMemory, UsageError
from ..service import Likeness, build
from ..storage.files import file_failed
from .terminal import Terminal

if TYPE_CHECKING:  # these import FastAPI
    from starlette.applications import Starlette

    from ..artifacts.exporting import Format
    from ..http.wire_protocol import WireProtocol


@dataclass(frozen=True)
class Extension:
    """What the composition root adds to the commands, which do not import `deploy`.

    Args:
        formats: of exports, by name; all of them.
        protocols: of the server, beside its own.
        container: the application of `serve --sagemaker`, with its engine.
    """

    formats: "Mapping[str, Format]"
    protocols: "Callable[[], Sequence[WireProtocol]]"
    container: "Callable[[Settings], AbstractContextManager[Starlette]]"


@dataclass(frozen=True)
class Call:
    """The context of every command: the global options and the extension."""

    settings: Settings
    terminal: Terminal
    extension: Extension
    _opened: list[Likeness] = field(default_factory=list)

    def likeness(self, base: str | None = None, revision: str | None = None) -> Likeness:
        """The installation, optionally with another base; closed when the command ends.

        Raises:
            UsageError: a revision without a model id.
        """
        self._opened.append(build(self.with_base(base, revision), self.extension.formats))
        return self._opened[-1]

    def close(self) -> None:
        """Close what `likeness` has opened."""
        while self._opened:
            self._opened.pop().close()

    def with_base(self, base: str | None, revision: str | None) -> Settings:
        """The settings, optionally with another base. Raises UsageError: a revision without a model id."""
        settings = self.settings
        if base is not None:
            settings = replace(settings, base=base, revision=revision)
        elif revision is not None:
            settings = replace(settings, revision=revision)
        is_built_in = settings.base == Settings.base
        if revision is not None and (is_built_in or Path(settings.base).is_dir()):
            raise UsageError(
                "expected --revision together with a Hugging Face model id as --base",
                hint="the built-in base and folders have no revision",
            )
        return settings


class Commands(TyperGroup):
    """The command group: global options can be anywhere, and all Likeness errors have one format."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        for stream in (sys.stdout, sys.stderr):  # the encoding of a terminal or file may lack a character
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        words = hoisted(list(sys.argv[1:] if args is None else args))
        terminal = Terminal(as_json="--json" in words[: words.index("--")] if "--" in words else "--json" in words)
        try:
            code = super().main(words, prog_name, standalone_mode=False, **extra) or 0
        except LikenessError as error:
            code = terminal.fail(error)
        except typer.Abort:  # a RuntimeError
            code = terminal.fail(LikenessError("stopped; nothing was changed"))
        except ClickException as error:
            code = terminal.fail(usage_error(error))
        except OSError as error:
            code = terminal.fail(file_failed(error))
        except (MemoryError, RuntimeError) as error:
            code = terminal.fail(memory_failed(error))
        if standalone_mode:
            sys.exit(code)
        return code

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:  # typer would exit without a message
            raise Interrupted("interrupted", hint="run the same command again") from error


def hoisted(words: list[str]) -> list[str]:
    """Moves --json and --home to the front, so that they can follow the command."""
    front: list[str] = []
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if word == "--":
            return [*front, *rest, word, *waiting]
        if word == "--json" or word.startswith("--home="):
            front.append(word)
        elif word == "--home":
            front += [word, *[value for value in [next(waiting, None)] if value is not None]]
        else:
            rest.append(word)
    return [*front, *rest]


def usage_error(error: ClickException) -> UsageError:
    """The parser's error, without the user's text."""
    hint = "`likeness COMMAND --help` shows the arguments and options"
    if isinstance(error, MissingParameter) and error.param is not None:
        return UsageError(f"expected {_shown(error.param)}, got nothing", hint=hint)
    if isinstance(error, BadParameter) and error.param is not None:
        return UsageError(f"expected another kind of value for {_shown(error.param)}", hint=hint)
    near = getattr(error, "possibilities", None)
    if near:
        return UsageError("there is no such option or command", hint=f"did you mean {near[0]}?")
    return UsageError("expected a command with its arguments and options", hint=hint)


def memory_failed(error: MemoryError | RuntimeError) -> OutOfMemory:
    """OutOfMemory for full memory of machine or device; raises any other error again."""
    from ..diffusion.devices import is_out_of_memory

    if not is_out_of_memory(error):
        raise error
    return OutOfMemory(
        "expected memory for this command, got none left",
        hint="close other programs, make fewer images at once, or use a smaller base",
    )


def check_out(folder: Path) -> Path:
    """Check before long work that the folder can be created or written to. Raises UsageError."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UsageError("expected --out to be a folder that can be written", hint="choose another path")
    return folder


def _shown(param: Any) -> str:
    """A parameter as in the help: --steps, NAME."""
    return param.opts[0] if param.opts[0].startswith("-") else param.metavar or param.name.upper()
