"""jsonl: the pretokenized files of 1d-tokenizer, a JSON object on each line.

https://github.com/bytedance/1d-tokenizer, data/webdataset_reader.py; the ten crops of an image stand on ten lines, one
behind the other.
"""

from collections.abc import Iterable

from pipeline.jobs.exporting.contents import Contents
from pipeline.jobs.exporting.disk import whole_file
from pipeline.jobs.exporting.examples import Examples
from pipeline.jobs.exporting.formats.format import Format, rows_per_file
from pipeline.jobs.exporting.place import Place
from pipeline.jobs.exporting.request import Request
from pipeline.records import JSON

_ROWS_PER_FILE = 1_000_000


class Lines(Format):
    """`part-00000.jsonl` …: `{"class_id": label, "tokens": […]}`."""

    options = frozenset({"rows_per_file"})
    views_in = "rows"
    has_files = True

    def __init__(self, contents: Contents, request: Request) -> None:
        self.piece_rows = rows_per_file(contents, request, _ROWS_PER_FILE)

    def describe(self) -> JSON:
        return {}

    def write(self, place: Place, piece: int, count: int, examples: Iterable[Examples]) -> JSON:
        name = f"part-{piece:05d}.jsonl"
        with whole_file(place.files / name, place.unfinished) as file:
            for some in examples:
                # A list of integers looks in Python as it does in JSON.
                pairs = zip(some.label.tolist(), some.tokens.tolist(), strict=True)
                file.write("".join(f'{{"class_id": {label}, "tokens": {row}}}\n' for label, row in pairs).encode())
        return {"files": {name: count}}
