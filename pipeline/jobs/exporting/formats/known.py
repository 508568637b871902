"""All formats, by name."""

from pipeline.errors import ConfigError
from pipeline.jobs.exporting.formats.arrays import Arrays
from pipeline.jobs.exporting.formats.format import Format
from pipeline.jobs.exporting.formats.lines import Lines
from pipeline.jobs.exporting.formats.llamagen import LlamaGen
from pipeline.jobs.exporting.formats.llm_c import LlmC
from pipeline.jobs.exporting.formats.mds import Mds
from pipeline.jobs.exporting.formats.megatron import Megatron
from pipeline.jobs.exporting.formats.parquet import Parquet
from pipeline.jobs.exporting.formats.tars import Tars
from pipeline.jobs.exporting.request import FormatName, Request, flag

FORMATS: dict[FormatName, type[Format]] = {
    "llamagen": LlamaGen,
    "megatron": Megatron,
    "parquet": Parquet,
    "webdataset": Tars,
    "jsonl": Lines,
    "npy": Arrays,
    "mds": Mds,
    "bin": LlmC,
}


def refuse_others(request: Request) -> None:
    """Raises ConfigError for an option that the format has no place for."""
    for name in request.particular():
        if name not in FORMATS[request.format].options:
            having = ", ".join(other for other, kind in FORMATS.items() if name in kind.options)
            raise ConfigError(f"{flag(name)}: the format {request.format} has no place for it; these have: {having}")
