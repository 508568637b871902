"""What is asked of an export. Without numpy: the command line knows it."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.records import Record

FormatName = Literal["llamagen", "megatron", "parquet", "webdataset", "jsonl", "npy", "mds", "bin"]

Token = Annotated[int, Field(ge=0)]
"""An id of a sequence."""


class Request(Record):
    """All that decides the bytes of an export, but for the store. None stands for what the format or store decides."""

    format: FormatName
    order: Literal["raster", "blocks"] | None = None
    """Of the tokens of an image: row by row of its grid, or block by block."""
    view: int | Literal["all", "rows"] | None = None
    """Of each row: one of its views, all of them in one example, or each as an example of its own."""
    partial: bool = False
    """Export what is committed, even if source shards are still pending."""
    name: str | None = None
    """What the names of LlamaGen's folders begin with."""
    offset: Token = 0
    """Added to each token."""
    bos: Token | None = None
    """Put before the tokens of an image."""
    eos: Token | None = None
    """Put behind them."""
    eol: Token | None = None
    """Put behind each row of the grid."""
    label_offset: Token | None = None
    """Added to the label, which is then put before the tokens."""
    rows_per_file: Annotated[int, Field(ge=1)] | None = None
    """Rows in a file, at most."""
    binary: tuple[str, ...] = ()
    """Kept fields that are no text."""

    def particular(self) -> list[str]:
        """Names of the options in use that not all formats have."""
        names = ("name", "offset", "bos", "eos", "eol", "label_offset", "rows_per_file", "binary")
        return [name for name in names if getattr(self, name) != type(self).model_fields[name].default]


def flag(name: str) -> str:
    """How an option is written on the command line."""
    return f"--{name.replace('_', '-')}"
