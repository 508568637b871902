"""Names and texts of strangers on terminals, in pages and in what is printed for pasting: shown, and never obeyed."""

import html
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures_store import Job, jpeg, make_job, store_of_keys, vqtok, write_shard
from hostile_tars import header, long_name, member, tar
from wicked import WICKED

from pipeline.cli import main
from pipeline.jobs.reporting import job as report
from pipeline.jobs.reporting.figures import Report

pytest_plugins = ["fixtures_store"]

NAMES = {what: name for what, name in WICKED.items() if "/" not in name}


def answer(*arguments: object) -> tuple[int, str]:
    """Exit status and all that a command prints, in this process."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="vqtok")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout + result.stderr


def assert_harmless(text: str) -> None:
    """Nothing that a terminal would obey, and no line that a name has begun."""
    assert all(line.isprintable() for line in text.split("\n")), text
    assert not any(line.startswith("vqtok: all is well") for line in text.split("\n")), text


def wicked_members(name: str) -> bytes:
    """Samples whose keys, extensions, labels and captions are of this name."""
    raw = name.encode("utf-8", "surrogateescape")
    image = jpeg(1)
    parts = [
        *(member(f"{name}.jpg", image), member(f"{name}.cls", raw), member(f"{name}.txt", raw)),
        *(member(f"b.{name}", raw), member("b.jpg", image), member("b.cls", b"1")),
        *(member(f"c.{name}", raw), member("c.cls", b"1")),  # no image
        *(member("d.jpg", raw * 9), member("d.cls", b"1")),  # one that is none
        *(member("e.jpg", image), member("e.json", raw)),
        *(member("f.jpg", image), member("f.cls", b"1")),
        *(member("g.jpg", image), member("g.cls", b"1"), header(b"h" + raw, 0, b"2")),
    ]
    return tar(*parts)


@pytest.fixture(scope="module")
def wicked(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A finished job over tars of wicked members, whose own names are wicked, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("wicked")
    source = folder / "source"
    source.mkdir()
    for name in NAMES.values():
        try:
            (source / f"{name}.tar").write_bytes(wicked_members(name))
        except OSError:  # the file system has no such names
            continue
    for path in source.glob("*udcff*"):
        path.unlink()
    changes = {"source.shards": f"{source}/*.tar", "source.base": str(source), "source.keep": ["txt", "json"]}
    job = make_job(folder, source, tokenizer_folder, changes | {"tokenize.max_reject_rate": 1.0})
    surrogate = source / f"{NAMES['surrogate']}.tar"
    if surrogate.exists():
        surrogate.unlink()  # a name that is not UTF-8 is refused
    assert job.run().complete
    return job


def test_no_command_obeys_a_name(wicked: Job) -> None:
    for command in (["tokenize"], ["status"], ["verify"], ["report"], ["clean"], ["tokenize", "--dry-run"]):
        status, text = answer(*command, "--config", wicked.file)
        assert status == 0, text
        assert_harmless(text)
    for name in NAMES.values():
        key = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        status, text = answer("show", wicked.store, "--", key)
        assert_harmless(text)
    status, text = answer("inspect", wicked.source)
    assert_harmless(text)
    status, text = answer("init", wicked.source)
    assert_harmless(text)


def test_nor_what_fails(wicked: Job, tmp_path: Path) -> None:
    """Each source shard for another reason that quotes its names."""
    for number, name in enumerate(NAMES.values()):
        raw = name.encode("utf-8", "surrogateescape")
        image = jpeg(2)
        twice = tar(member(f"{name}.jpg", image), member("b.jpg", image), member(f"{name}.cls", b"1"))
        (tmp_path / f"{number}-twice.tar").write_bytes(twice)
        (tmp_path / f"{number}-cut.tar").write_bytes(long_name(raw * 3) + member("x.jpg", image)[:600])
        (tmp_path / f"{number}-not.tar").write_bytes(raw * 100)
    changes = {"source.shards": f"{tmp_path}/*.tar", "source.base": str(tmp_path), "source.label": "cls"}
    job = make_job(tmp_path / "job", tmp_path, wicked.tokenizer, changes)
    done = vqtok("tokenize", "--no-progress", "--config", job.file, folder=job.output).wait()
    assert done.status == 1
    assert_harmless(done.err + done.out)
    for command in (["status"], ["verify"]):
        assert_harmless(answer(*command, "--config", job.file)[1])


def test_nor_classes_and_folders(tokenizer_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in NAMES.values():
        (source / name).mkdir(parents=True)
        (source / name / "a.jpg").write_bytes(jpeg(1))
    changes = {"source.shards": str(source), "source.base": None, "source.label": "folder", "source.keep": []}
    job = make_job(tmp_path / "job", source, tokenizer_folder, changes)
    done = vqtok("tokenize", "--no-progress", "--config", job.file, folder=job.output).wait()
    assert done.status == 0, done.err
    assert_harmless(done.err + done.out)
    (source / "another\x1b[31m").mkdir()
    (source / "another\x1b[31m" / "z.jpg").write_bytes(jpeg(1))
    for command in (["tokenize", "--no-progress"], ["status"], ["inspect"]):
        given = [source] if command == ["inspect"] else ["--config", job.file]
        assert_harmless(answer(*command, *given)[1])


def test_nor_files_of_a_store(wicked: Job, tmp_path: Path) -> None:
    shutil.copytree(wicked.store, tmp_path / "store")
    job = make_job(
        tmp_path,
        wicked.source,
        wicked.tokenizer,
        {"source.shards": f"{wicked.source}/*.tar", "source.keep": ["txt", "json"]},
    )
    first = next((job.store / "commits").glob("*.json"))
    for name in NAMES.values():
        (job.store / "commits" / f"{name}.json").write_text(first.read_text())
        (job.store / "failures").mkdir(exist_ok=True)
        (job.store / "rejects" / f"{name}.x.jsonl").write_text("")
    claim = {"part": "x", "token": "t", "host": NAMES["escape"], "boot_id": "", "pid_namespace": "", "pid": 1}
    (job.store / "claims" / f"{first.stem}.json").parent.mkdir(exist_ok=True)
    (job.store / "claims" / f"{first.stem}.json").write_text(json.dumps(claim | {"pid_started": 1, "since": "\x1b"}))
    for command in (["status"], ["verify"], ["clean"], ["report"], ["tokenize"]):
        assert_harmless(answer(*command, "--config", job.file)[1])
    assert_harmless(answer("show", job.store, "b")[1])


class Tags(HTMLParser):
    """The tags of a page, and the text that is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_shows_names_and_does_not_run_them(tokenizer_folder: Path, tmp_path: Path) -> None:
    script = "<script>alert(1)</script>"
    samples = [(f"a{number}{script.replace('/', '')}", {"jpg": jpeg(number), "cls": b"1"}) for number in range(3)]
    samples += [("b", {"jpg": jpeg(3), "cls": script.encode()}), ("c", {script.replace("/", ""): b"", "cls": b"1"})]
    samples += [("d", {"jpg": script.encode(), "cls": b"1"}), ("e", {"jpg": jpeg(4), "cls": b"\x1b\xe2\x80\xae"})]
    source = write_shard(tmp_path / "a.tar", samples)
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    changes = {"source.shards": str(source), "source.base": None, "source.keep": []}
    job = make_job(folder, tmp_path, tokenizer_folder, changes)
    assert job.run().complete
    made = report.run(job.config())
    page = Tags()
    text = Path(made.html).read_text()
    page.feed(text)
    assert "script" not in page.tags
    assert page.tags.count("img") == 1  # the picture
    assert script in page.text
    assert html.escape(str(job.store)) in text
    assert all(line.isprintable() for line in text.split("\n"))


def forged(found: Report) -> dict[str, object]:
    tree = json.loads(found.to_json())
    evil = '/tmp/x"); __import__("os").system("id") #'
    return tree | {"store": evil, "html": "\x1b[31m" + evil, "picture": evil, "missing": {"\x1b]0;x\x07\n": 3}}


def test_a_forged_report_is_not_printed_for_pasting(finished: Job, tmp_path: Path) -> None:
    shutil.copytree(finished.store, tmp_path / "job/store")
    changes = {"tokenize.store": str(tmp_path / "job/store")}
    job = make_job(tmp_path / "job", finished.source, finished.tokenizer, changes)
    made = report.run(job.config())
    file = Path(f"{job.store}-report/report.json")
    assert report.run(job.config()) == made
    file.write_text(json.dumps(forged(made)))
    status, text = answer("report", "--config", job.file)
    assert status == 0
    assert_harmless(text)
    assert "__import__" not in text
    assert f'store = TokenStore("{job.store}")' in text
    for wrong in ({"vocab_size": 0}, {"bytes": 10**400}, {"tokens": -1}, {"psnr": "x"}):
        file.write_text(json.dumps(json.loads(made.to_json()) | wrong))
        assert answer("report", "--config", job.file)[0] == 0


@pytest.mark.parametrize("name", ['a"b', "a'b", "a\\b", "a\nb", "日本", "a b"])
def test_what_is_printed_for_pasting_is_python(name: str) -> None:
    figures = {"content_digest": "", "basis": "", "html": "", "picture": None, "written": 0, "rejected": 0}
    figures |= {"reject_reasons": {}, "tokens": 0, "bytes": 0, "vocab_size": 2, "codes_used": 0, "entropy_bits": 0}
    usage = Report.model_validate(figures | {"store": name, "psnr": None, "images_rebuilt": 0}).usage
    opened: list[str] = []
    line = next(line for line in usage.splitlines() if "TokenStore(" in line and "=" in line)
    exec(line, {"TokenStore": opened.append})
    assert opened == [name]


def test_a_repack_command_is_printed_only_for_names_that_can_be_pasted(tmp_path: Path) -> None:
    image = jpeg(1)
    apart = tar(member("a.jpg", image), member("b.jpg", image), member("a.cls", b"1"))
    from pipeline.errors import SourceError
    from pipeline.files import LocalFiles
    from pipeline.source.containers.tar.reader import TarReader

    for name, is_pasted in (("it's.tar", True), ("a\x1b[201~.tar", False), ("a\nb.tar", False)):
        (tmp_path / name).write_bytes(apart)
        with pytest.raises(SourceError) as caught:
            list(TarReader(LocalFiles(tmp_path), name))
        assert ("mkdir -- " in str(caught.value)) is is_pasted
        assert str(caught.value).isprintable()


def test_captions_are_shown_as_they_are_and_escaped(tmp_path: Path) -> None:
    caption = "see https://u:p4ssw0rd@h/?q=1\x1b[31m\nvqtok: all is well"
    store = store_of_keys(tmp_path / "store", {"part": ["a"]}, {"txt": [caption.encode()]})
    status, text = answer("show", store, "a")
    assert status == 0
    assert_harmless(text)
    assert "see https://u:p4ssw0rd@h/?q=1\\x1b[31m\\nvqtok" in text
    found = json.loads(answer("show", "--json", store, "a")[1])
    assert found["rows"][0]["fields"]["txt"]["text"] == caption
