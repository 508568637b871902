"""The figures of a report."""

import json
import math
from typing import Annotated

from pydantic import Field

from pipeline.jobs.missing import without
from pipeline.printing import one_line
from pipeline.records import Count, Record


class Report(Record):
    """Figures of a store, and where they are written."""

    content_digest: str
    """Of the store that the figures are of."""
    basis: str
    """Digest of all else that they depend on: what the store is compared with, and the version of vqtok."""
    store: str
    html: str
    picture: str | None
    """Originals above reconstructions from the store; None without rows or a layout that can be decoded."""
    written: Count
    rejected: Count
    unlabelled: Count = 0
    """Rows without a label, where the configuration asks for labels."""
    missing: dict[str, Count] = Field(default={})
    """Rows without a kept field, by its name."""
    reject_reasons: dict[str, Count]
    tokens: Count
    bytes: Count
    """Size of all parts on disk."""
    vocab_size: Annotated[int, Field(ge=1, le=1 << 32)]
    codes_used: Count
    entropy_bits: float
    """Zero-order entropy of the tokens: what a model that knows only how often codes occur must pay."""
    psnr: float | None
    """In dB, of images rebuilt from the store against their originals; None like `picture`."""
    images_rebuilt: Count
    damaged: tuple[str, ...] = ()
    """What could not be read, a message for each; the figures are of the rest."""

    def figures(self) -> list[tuple[str, str]]:
        """Name and value of every figure."""
        return [(name, one_line(value)) for name, value in self._figures()]

    def _figures(self) -> list[tuple[str, str]]:
        per_token = 8 * self.bytes / self.tokens if self.tokens else 0.0
        return [
            ("rows", f"{self.written:,} written, {self.rejected:,} rejected"),
            *([("missing", lacking)] if (lacking := without(self.unlabelled, self.missing)) else []),
            ("tokens", f"{self.tokens:,}"),
            ("size on disk", f"{self.bytes / 1e6:,.2f} MB with keys and labels"),
            (
                "bits per token",
                f"{per_token:.2f} on disk, {self.entropy_bits:.2f} zero-order entropy, "
                f"{math.log2(self.vocab_size):.2f} for even use of the codebook",
            ),
            ("codebook use", f"{self.codes_used} of {self.vocab_size} codes ({self.codes_used / self.vocab_size:.0%})"),
            (
                "reconstruction PSNR",
                f"{self.psnr:.2f} dB over {self.images_rebuilt} images of the store"
                if self.psnr is not None
                else f"none: {self._why_none()}",
            ),
            ("picture", "none" if self.picture is None else f"{self.picture} (originals above reconstructions)"),
            ("report", self.html),
            *(("damaged", message) for message in self.damaged),
        ]

    def _why_none(self) -> str:
        if not self.written:
            return "there are no rows"
        return "what was to be rebuilt is damaged" if self.damaged else "the tokens cannot be decoded"

    @property
    def usage(self) -> str:
        """Python that loads the store."""
        return (
            "from pipeline.store import TokenStore\n"
            "from pipeline.loader import TokenLoader\n"
            f"store = TokenStore({json.dumps(self.store)})\n"  # as Python has it, too, whatever the name of the folder
            "for batch in TokenLoader(store, batch_size=256):\n"
            "    x_BLC = store.idxBl_to_var_input(batch.idx_Bl)"
        )

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.figures())
        lines = [f"{name:<{width}}  {value}" for name, value in self.figures()]
        usage = ["    " + line for line in self.usage.splitlines()]
        return "\n".join([*lines, "", "Load it:", "", *usage])
