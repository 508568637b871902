"""`vqtok import KIND`: a command for each kind of tokenizer, with options that nobody but the kind knows."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.printing import say

if TYPE_CHECKING:
    from pipeline.models.tokenizers.importer import Importer


class _Kinds(click.Group):
    """A command for each kind of tokenizer that can be imported, with the options that the kind declares."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from pipeline.models.tokenizers.registry import importers

        return list(importers())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from pipeline.models.tokenizers.registry import importers

        importer = importers().get(cmd_name)
        return None if importer is None else _import_command(cmd_name, importer)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        kinds = self.list_commands(ctx)
        if args[0] not in kinds:
            ctx.fail(f"no kind of tokenizer {args[0]!r}; known: {', '.join(kinds)}")
        return super().resolve_command(ctx, args)


def _import_command(kind: str, importer: "Importer") -> click.Command:
    def run_import(source: str, out: Path, **given: Any) -> None:
        from pipeline.jobs.importing import job

        options = {name.replace("_", "-"): value for name, value in given.items() if value not in (None, False)}
        say(job.run(kind, source, out, options))

    def checked(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
        def value_of(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
            try:
                return None if text is None else parse(text)
            except ValueError as error:
                raise click.BadParameter(str(error)) from None

        return value_of

    options = [
        click.Option([f"--{option.name}"], help=option.help, metavar=option.metavar, callback=checked(option.parse))
        if option.parse
        else click.Option([f"--{option.name}"], help=option.help, is_flag=True)
        for option in importer.options
    ]
    names = ", ".join(f"--{option.name}" for option in importer.options)
    return click.Command(
        kind,
        callback=run_import,
        params=[
            click.Argument(["source"], metavar=importer.metavar),
            click.Argument(["out"], type=click.Path(path_type=Path)),
            *options,
        ],
        help=f"{importer.help} OUT is a new folder.",
        short_help=f"{importer.help} Options: {names}." if names else importer.help,
    )


@click.group("import", cls=_Kinds, subcommand_metavar="KIND SOURCE OUT [OPTIONS]")
def import_() -> None:
    """Make a tokenizer folder of a published tokenizer.

    It comes whole or not at all. Nothing but tensors is read of a checkpoint: one that could run code is refused.
    """
