"""The page opens with nothing beside it, and is no way in for what a store holds."""

import base64
import html
import re
from pathlib import Path

from fixtures_store import IMAGE_SIZE, Job, make_job, write_shard
from PIL import Image

from pipeline.jobs.reporting import job as report

pytest_plugins = ["fixtures_store", "fixtures_report"]


def test_the_files_are_where_the_report_says(made_report: report.Report, finished: Job) -> None:
    assert made_report.html == f"{finished.store}-report/report.html"
    assert made_report.picture is not None
    picture = Image.open(made_report.picture)
    assert picture.width == 8 * (IMAGE_SIZE[1] + 2) + 2  # eight columns, two pixels between them
    page = Path(made_report.html).read_text()
    (embedded,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert base64.b64decode(embedded) == Path(made_report.picture).read_bytes()
    for _, value in made_report.figures():
        assert html.escape(value) in page
    assert html.escape(made_report.usage) in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # opens with nothing beside it


def test_a_store_of_nothing_but_rejects_has_a_report(tokenizer_folder: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "source/train-0.tar", [("a<b", {"jpg": b"<script>"})])
    job = make_job(tmp_path / "job", tmp_path / "source", tokenizer_folder, {"source.shards": f"{tmp_path}/source/*"})
    assert job.run().complete
    made = report.run(job.config())
    assert (made.written, made.rejected, made.tokens, made.entropy_bits) == (0, 1, 0, 0)
    assert "none: there are no rows" in str(made)
    assert "-0.00" not in str(made)
    page = Path(made.html).read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
