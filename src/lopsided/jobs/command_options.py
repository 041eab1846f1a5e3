"""Makes the options of a command from the settings of a configuration."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from lopsided.data.options import ReadOptions


def with_options(settings: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the settings of a configuration, "module:Class", as options, in the place of its **asked.

    Each is None when not given, so that a run folder can tell what was asked anew. They are made when the command is
    called, by `Configured`: to list commands needs no pydantic.
    """

    def add(command: Callable[..., None]) -> Callable[..., None]:
        *own, _ = inspect.signature(command, eval_str=True).parameters.values()

        @functools.wraps(command)
        def run(**values: Any) -> None:
            command(**{name: value for name, value in values.items() if value is not None})

        def completed() -> Callable[..., None]:
            module, _, name = settings.partition(":")
            kind = getattr(importlib.import_module(module), name)
            return _signed(run, [*own, *(_option(name, field) for name, field in _by_panel(kind))])

        run.completed = completed  # type: ignore[attr-defined]
        return _signed(run, own)

    return add


def _signed(run: Callable[..., None], parameters: list[inspect.Parameter]) -> Callable[..., None]:
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


class Configured(TyperCommand):
    """A command `with_options`, which are made when it is called."""

    def completed(self) -> TyperCommand:
        """Returns the same command with all its options."""
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(self.name, cls=_Panelled)(self.callback.completed())  # type: ignore[union-attr]
        return cast("TyperCommand", get_command(app))

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        return self.completed().make_context(*arguments, **settings)


class _Panelled(TyperCommand):
    """A command whose help lists its options by panel. It is plain: rich takes as long to draw it as all the rest."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[Any]] = {}
        for each in cast("list[Any]", self.get_params(ctx)):
            heading = "Arguments" if each.param_type_name == "argument" else each.rich_help_panel or "Options"
            sections.setdefault(heading, []).append(each.get_help_record(ctx))
        for heading, lines in sections.items():
            with formatter.section(heading):
                formatter.write_dl(lines)


class Group(TyperGroup):
    """A group of commands, whose help tells of each in a whole sentence, and is what the group alone prints."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, str(each.help).split("\n\n")[0]) for name, each in self.commands.items()])


def _by_panel(kind: type[ReadOptions]) -> list[tuple[str, FieldInfo]]:
    """Returns the settings that are options, in the order of the panels of the help."""
    from lopsided.data.options import Panel

    options = [(name, field) for name, field in kind.model_fields.items() if field.description]
    return sorted(options, key=lambda option: get_args(Panel).index(_of_help(option[1], "panel")))


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    kind, *_ = get_args(field.annotation) or (field.annotation,)  # of a list, the type of the text a user writes
    long = "--" + name.replace("_", "-")
    names = [long, long[:-1]] if name.endswith("_columns") else [long]
    option = typer.Option(
        *names,
        help=field.description,
        show_default=_shown_default(field),
        metavar="<word>" if get_origin(kind) is Literal else None,  # the text tells which
        rich_help_panel=_of_help(field, "panel"),
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _of_help(field: FieldInfo, name: Literal["unset", "panel"]) -> str:
    return cast("dict[str, str]", field.json_schema_extra)[name]


def _shown_default(field: FieldInfo) -> str:
    default = field.default
    if default is None or default == ():
        return _of_help(field, "unset")
    if isinstance(default, bool):
        return "yes" if default else "no"
    return (
        f"{default:g}"
        if isinstance(default, float)
        else ",".join(default)
        if isinstance(default, tuple)
        else str(default)
    )
