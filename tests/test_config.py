"""The YAML configuration: what is accepted, and how everything else is explained."""

import ast
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from support import ROOT

from pipeline import config
from pipeline.before import completed
from pipeline.config import Config, ImageConfig, Section, load_config
from pipeline.errors import ConfigError

SMALLEST: dict[str, Any] = {
    "source": {"shards": "data/train-{0000..0003}.tar"},
    "image": {"size": 64},
    "tokenizer": {"path": "runs/tokenizer"},
    "tokenize": {"store": "runs/store"},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(SMALLEST))
    return path


def load(file: Path, *overrides: str) -> Config:
    return load_config(file, overrides)


def explained(file: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides)
    assert caught.value.exit_status == 2
    return str(caught.value)


def test_the_smallest_file_has_defaults_for_everything_else(file: Path) -> None:
    config = load(file)
    assert config.source.shards == ("data/train-{0000..0003}.tar",)
    assert config.image.size == (64, 64)
    assert (config.source.label, config.tokenize.layout, config.train.model.vocab_size) == ("cls", None, 16)


def test_a_configuration_cannot_be_changed(file: Path) -> None:
    config = load(file)
    with pytest.raises(ValidationError):
        config.image.max_pixels = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        config.train.model = None  # type: ignore[assignment, misc]


OVERRIDES = [
    ("tokenize.batch_size=32", "tokenize.batch_size", 32),
    ("image.size=[48, 96]", "image.size", (48, 96)),
    ("image.size=48", "image.size", (48, 48)),
    ("image.size='48'", "image.size", (48, 48)),  # as text, which an environment variable always is
    ("train.model.vocab_size=512", "train.model.vocab_size", 512),  # two sections deep, none of them in the file
    ("train.model.ema_decay=0.99", "train.model.ema_decay", 0.99),
    ("train.learning_rate=1e-3", "train.learning_rate", 0.001),  # text to YAML, which wants 1.0e-3
    ("source.label=null", "source.label", None),
    ("source.keep=json", "source.keep", ("json",)),
    ("source.keep=[json, txt]", "source.keep", ("json", "txt")),
    ("source.allow_unterminated=yes", "source.allow_unterminated", True),
    ("tokenize.decode_workers=auto", "tokenize.decode_workers", "auto"),
    ("tokenize.decode_workers=3", "tokenize.decode_workers", 3),
    (" tokenize.store = elsewhere", "tokenize.store", "elsewhere"),
    ("tokenize.store=a=b", "tokenize.store", "a=b"),  # the first equals sign divides
    ("source.shards=../d/x-{0000..0003}.tar", "source.shards", ("../d/x-{0000..0003}.tar",)),
    ("source.shards={0000..0003}.tar", "source.shards", ("{0000..0003}.tar",)),  # bad YAML, good pattern
    ("source.shards={train,val}/*.tar", "source.shards", ("{train,val}/*.tar",)),
    ("source.shards=*.tar", "source.shards", ("*.tar",)),  # an alias to YAML
    ("source.shards=[a.tar, 'x-{1..2}.tar']", "source.shards", ("a.tar", "x-{1..2}.tar")),
]


@pytest.mark.parametrize(("override", "field", "value"), OVERRIDES, ids=[row[0] for row in OVERRIDES])
def test_an_override_sets_one_field(file: Path, override: str, field: str, value: Any) -> None:
    found: Any = load(file, override)
    for step in field.split("."):
        found = getattr(found, step)
    assert found == value
    assert type(found) is type(value)


def test_the_last_override_of_a_field_wins(file: Path) -> None:
    assert load(file, "image.size=8", "image.size=16").image.size == (16, 16)


@pytest.mark.parametrize("override", ["tokenize.batch_size", "batch_size=3", ".x=3", "tokenize.=3", "", "=3"])
def test_an_override_without_section_key_or_value_shows_the_form(file: Path, override: str) -> None:
    assert "write it as section.key=value" in explained(file, override)


def test_an_override_below_a_plain_value_is_refused(file: Path) -> None:
    assert "store is not a section" in explained(file, "tokenize.store.deep=1")


BAD_VALUES = [
    ("tokenize.batch_size=many", "tokenize.batch_size: ", "'many'"),
    ("tokenize.batch_size=0", "tokenize.batch_size: ", "0"),
    ("tokenize.batch_size=1.5", "tokenize.batch_size: ", "1.5"),
    ("tokenize.batch_size=yes", "tokenize.batch_size: ", "True"),  # not 1
    ("tokenize.decode_workers=some", "tokenize.decode_workers: ", "'auto'"),
    ("image.size=true", "image.size: ", "True"),  # not 1x1
    ("image.size=[1, 2, 3]", "image.size: ", "[1, 2, 3]"),
    ("image.size=0", "image.size", "0"),
    ("image.resize=longest", "image.resize: ", "'shortest', 'stretch', 'none' or 'adm'"),
    ("tokenize.max_reject_rate=2", "tokenize.max_reject_rate: ", "2"),
    ("image.interpolation=lanczos", "image.interpolation: ", "set image.decoder=pillow"),
    ("image.resize=adm", "image.resize: ", "set image.decoder=pillow"),
    ("image.plain=true", "image.plain: ", "set image.decoder=pillow"),
    ("image.resize_to=63", "image.resize_to: ", "less than the 64 of image.size"),
    ("image.views=tencrop", "image.views: ", "'center', 'flip' or 'ten_crop' (got 'tencrop')"),
    ("image.views=ten_crop", "image.views: ", "set image.resize_to to its side, such as 70"),
    ("image.views={random: 0}", "image.views.random: ", "greater than or equal to 1 (got 0)"),
    ("image.views={scale: [0.5, 1]}", "image.views.random: ", "missing"),
    ("image.views={random: 2, scale: [0, 1]}", "image.views.scale: ", "0 < smallest <= largest <= 1 (got [0.0, 1.0])"),
    ("image.views={random: 2, scale: [0.9, 0.8]}", "image.views.scale: ", "(got [0.9, 0.8])"),
    ("image.views={random: 2, scale: [0.9, 1.1]}", "image.views.scale: ", "(got [0.9, 1.1])"),
    ("image.views={random: 2, scales: [0.9, 1]}", "image.views.scales: ", "did you mean scale?"),
    ("loader.views=some", "loader.views: ", "'random' or 'all'"),
    ("loader.views=-1", "loader.views: ", "-1"),
    ("train.model.ema_decay=1", "train.model.ema_decay: ", "less than 1"),
    ("source.label=no", "source.label: ", "quote"),  # YAML reads false
    ("source.keep=[a/b]", "source.keep.0: ", "'a/b'"),
    ("source.keep=.jpg", "source.keep.0: ", "'.jpg'"),
    ("source.shards=7", "source.shards: ", "7"),
    ("source.shards={a,b}", "source.shards: ", "'a'"),  # good YAML, and a mapping
    ("tokenizer.path=7", "tokenizer.path: ", "7"),
    ("train=7", "write it as section.key=value", ""),
    ("train.model=7", "train.model: ", "7"),
]


@pytest.mark.parametrize(("override", "field", "hint"), BAD_VALUES, ids=[row[0] for row in BAD_VALUES])
def test_a_wrong_value_is_named_with_its_field_and_file(file: Path, override: str, field: str, hint: str) -> None:
    message = explained(file, override)
    assert field in message
    assert hint in message
    assert "write it as" in message or all(line.startswith(f"{file}: ") for line in message.splitlines())
    assert "constrained-" not in message
    assert "literal[" not in message
    assert "either-" not in message


# Keys of the image section that do not go together; which of them is named, and what is said of it.
AT_ODDS = [
    ({"decoder": "pillow", "resize": "adm", "interpolation": "box"}, "interpolation", "leave it out (got 'box')"),
    ({"resize_to": 70, "resize": "none"}, "resize_to", "leave one of the two out (got 70)"),
    ({"resize_to": 70, "crop": "none"}, "resize_to", "would reject every image"),
    ({"resize_to": 64, "views": "ten_crop"}, "views", "a square larger than image.size"),
    ({"views": "ten_crop", "crop": "none"}, "views", "set image.crop=center"),
    ({"views": "{random: 2}", "crop": "none"}, "views", "set image.crop=center (got 'random')"),
    ({"views": "{random: 2}", "resize": "none"}, "views", "set image.resize=shortest (got 'random')"),
    ({"views": "{random: 2, scale: [0.5, 1], flip: 3}"}, "views.flip", "valid boolean"),
]


@pytest.mark.parametrize(("keys", "named", "hint"), AT_ODDS)
def test_keys_at_odds_are_refused_by_name(file: Path, keys: dict[str, Any], named: str, hint: str) -> None:
    message = explained(file, *(f"image.{key}={value}" for key, value in keys.items()))
    assert message.startswith(f"{file}: image.{named}: ")
    assert hint in message and "\n" not in message


def test_an_unknown_key_names_the_one_that_was_meant(file: Path) -> None:
    assert explained(file, "tokenize.batchsize=8").endswith("tokenize.batchsize: unknown key; did you mean batch_size?")
    assert explained(file, "source.keep=[.txt]").endswith("column; write txt, without the dot (got '.txt')")
    assert explained(file, "source.image=a/b").endswith("neither an extension, such as txt, nor a column (got 'a/b')")
    assert "sorce: unknown key; did you mean source?" in explained(file, "sorce.shards=a.tar")
    assert "train.model.vocabsize: unknown key; did you mean vocab_size?" in explained(file, "train.model.vocabsize=8")


def test_an_unknown_key_like_no_other_lists_the_known_ones(file: Path) -> None:
    assert "tokenizer.zebra: unknown key; known: path" in explained(file, "tokenizer.zebra=1")


def test_every_error_has_a_line(file: Path) -> None:
    assert len(explained(file, "image.size=0", "image.zebra=1", "tokenize.codec=zip").splitlines()) >= 3


@pytest.mark.parametrize("section", ["source", "image"])
def test_a_missing_section_is_named(file: Path, section: str) -> None:
    file.write_text(yaml.safe_dump({name: body for name, body in SMALLEST.items() if name != section}))
    assert explained(file) == f"{file}: {section}: missing"


def test_a_section_without_keys_is_an_empty_one(file: Path) -> None:
    file.write_text(file.read_text() + "train:\n  # steps: 5\nloader:\n")
    assert load(file).train.steps == 1000
    assert load(file, "train.steps=7").train.steps == 7


@pytest.mark.parametrize("places", [{}, {"tokenizer": None, "tokenize": {"store": None}}])
@pytest.mark.parametrize("name", ["my.yaml", "photos.v2.yaml", "${HOME}.yaml"])
def test_a_file_that_names_no_places_has_a_run_folder_of_its_name(
    tmp_path: Path, name: str, places: dict[str, Any]
) -> None:
    copy = tmp_path / name
    copy.write_text(yaml.safe_dump({"source": SMALLEST["source"], "image": SMALLEST["image"], **places}))
    config = load(copy)
    assert config.tokenizer.path == f"runs/{name.removesuffix('.yaml')}/tokenizer"
    assert config.tokenize.store == f"runs/{name.removesuffix('.yaml')}/store"
    assert load(copy, "tokenize.store=s3://bucket/x").tokenize.store == "s3://bucket/x"
    assert "tokenizer.path: " in explained(copy, "tokenizer.path=''")  # not the working folder


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.name)
def test_a_copy_of_a_shipped_configuration_has_a_run_of_its_own(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CIFAR10_SHARDS", "IMAGENET"):
        monkeypatch.setenv(name, "data")
    copy = Path(shutil.copy(file, tmp_path / "mine.yaml"))
    for loaded, run in ((load(file), file.stem), (load(copy), "mine")):
        assert (loaded.tokenizer.path, loaded.tokenize.store) == (f"runs/{run}/tokenizer", f"runs/{run}/store")


def test_a_pipe_gives_no_name(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = yaml.safe_dump({"source": SMALLEST["source"], "image": SMALLEST["image"]})
    writer = threading.Thread(target=pipe.write_text, args=(text,))
    writer.start()
    with pytest.raises(ConfigError, match=r"tokenizer: missing"):
        load_config(pipe)
    writer.join()


def test_a_null_section_inside_a_section_takes_overrides(file: Path) -> None:
    file.write_text(file.read_text() + "train:\n  model:\n")
    assert load(file, "train.model.beta=0.5").train.model.beta == 0.5


def laughs() -> list[str]:
    """Ten aliases of ten aliases of ten..., of lists and of sections."""
    lists, sections = "a0: &a0 [x]\n", "a0: &a0 {k: x}\n"
    for level in range(1, 10):
        before = f"*a{level - 1}"
        lists += f"a{level}: &a{level} [{', '.join([before] * 10)}]\n"
        sections += f"a{level}: &a{level} {{{', '.join(f'k{n}: {before}' for n in range(10))}}}\n"
    return [lists, sections]


def merges() -> str:
    """The same with merge keys."""
    levels = ["a0: &a0 {k: x}"]
    levels += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 10)]
    return "{" + ", ".join(levels) + "}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("source: [", "not valid YAML"),
        ("source: {shards: a\n\tb: c}", "not valid YAML"),
        ("a: !!python/object:os.system x", "not valid YAML"),  # no code runs
        ("", "holds no sections"),
        ("- a\n- b\n", "holds no sections"),
        ("just words", "holds no sections"),
        ("a: 2001-99-99", "not valid YAML: month must be in 1..12; quote the value"),
        ("a: " + "9" * 5000, "not valid YAML: "),
        *((text, "not a configuration: more than 1,000,000 values") for text in laughs()),
        ("a: &a [*a]", "not a configuration: sections lie in one another"),
        ("a: " + "[" * 50_000, "not a configuration: sections lie in one another"),
        ("a: " + "{b: " * 100 + "}" * 100, "not a configuration: sections lie in one another"),
        (merges(), "not valid YAML: line 1, column "),
        (" " * (17 << 20), "holds more than 16,777,216 bytes"),
    ],
    ids=lambda value: value[:20],
)
def test_a_file_that_is_no_configuration_says_why(file: Path, text: str, reason: str) -> None:
    file.write_text(text)
    message = explained(file)
    assert message.startswith(f"{file}: ")
    assert reason in message
    assert "\n" not in message


def test_a_missing_unreadable_or_binary_file_is_named(tmp_path: Path) -> None:
    assert "no such configuration file" in explained(tmp_path / "absent.yaml")
    assert "cannot be read" in explained(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in explained(tmp_path / "binary.yaml")


VARIABLES = [
    ("${VQTOK_DATA}/a.tar", {"VQTOK_DATA": "/mnt"}, "/mnt/a.tar"),
    ("${VQTOK_DATA}/${VQTOK_SPLIT}.tar", {"VQTOK_DATA": "/mnt", "VQTOK_SPLIT": "val"}, "/mnt/val.tar"),
    ("${VQTOK_DATA:-/here}/a.tar", {"VQTOK_DATA": "/mnt"}, "/mnt/a.tar"),
    ("${VQTOK_DATA:-/here}/a.tar", {}, "/here/a.tar"),
    ("${VQTOK_DATA:-/here}/a.tar", {"VQTOK_DATA": ""}, "/here/a.tar"),  # as in a shell
    ("a${VQTOK_DATA:-}.tar", {}, "a.tar"),
    ("a${VQTOK_DATA}.tar", {"VQTOK_DATA": ""}, "a.tar"),
    ("${VQTOK_DATA:-x-{0000..0003}.tar}", {}, "x-{0000..0003}.tar"),  # a brace pattern inside the default
    ("${VQTOK_DATA:-a}-{0..1}.tar", {}, "a-{0..1}.tar"),
    ("$VQTOK_DATA.tar", {"VQTOK_DATA": "x"}, "$VQTOK_DATA.tar"),  # only with braces
    ("${VQTOK_DATA}", {"VQTOK_DATA": "${HOME}"}, "${HOME}"),  # values are not expanded again
]


@pytest.mark.parametrize(("pattern", "environment", "value"), VARIABLES)
def test_environment_variables_are_filled_in(
    file: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, environment: dict[str, str], value: str
) -> None:
    for name in ("VQTOK_DATA", "VQTOK_SPLIT"):
        monkeypatch.delenv(name, raising=False)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    assert load(file, f"source.shards=[{pattern!r}]").source.shards == (value,)


def test_a_variable_can_be_a_number(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQTOK_SIZE", "32")
    config = load(file, "image.size=${VQTOK_SIZE}", "tokenize.batch_size=${VQTOK_BATCH:-8}")
    assert (config.image.size, config.tokenize.batch_size) == ((32, 32), 8)


def test_an_unset_variable_is_named_and_an_override_stands_in_for_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VQTOK_DATA", raising=False)
    file.write_text(yaml.safe_dump({**SMALLEST, "source": {"shards": ["${VQTOK_DATA}/a.tar"]}}))
    assert "VQTOK_DATA is not set; export it or use --set" in explained(file)
    assert load(file, "source.shards=b.tar").source.shards == ("b.tar",)


def test_an_empty_variable_is_no_beginning_of_a_path(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`${VQTOK_DATA}/store` would be a folder of the root."""
    monkeypatch.setenv("VQTOK_DATA", "")
    for text in ("tokenize.store=${VQTOK_DATA}/store", "source.shards=[a.tar, '${VQTOK_DATA}/b.tar']"):
        assert "VQTOK_DATA is empty, and so what follows it would lie in the root folder" in explained(file, text)
    assert load(file, "tokenize.store=${VQTOK_DATA:-}/store").tokenize.store == "/store"


@pytest.mark.parametrize(
    ("place", "remedy"),
    [
        ("s3:/bucket/tokens", "write s3://bucket/tokens"),  # as `str(Path("s3://bucket/tokens"))`
        ("GS:/bucket/tokens", "write GS://bucket/tokens"),
        ("file:/tmp/tokens", "write file:///tmp/tokens"),
        ("$VQTOK_DATA/tokens", "is written ${VQTOK_DATA}, with braces"),
        ("runs/x-$VQTOK_DATA", "is written ${VQTOK_DATA}, with braces"),
    ],
)
@pytest.mark.parametrize("key", ["tokenize.store", "tokenizer.path"])
def test_a_place_that_was_meant_otherwise_makes_no_folder(file: Path, key: str, place: str, remedy: str) -> None:
    message = explained(file, f"{key}={place}")
    assert message.startswith(f"{file}: {key}: ")
    assert remedy in message


def test_an_odd_name_of_a_folder_that_is_there_is_its_name(file: Path, tmp_path: Path) -> None:
    odd = tmp_path / "$RECYCLE"
    odd.mkdir()
    for place in (str(odd), "s3://bucket/$a", "a$", "a$1", "file:///tmp/x", "x:/y"):
        assert load(file, f"tokenize.store={place}").tokenize.store == place


def test_the_identity_of_an_image_section_holds_all_that_decides_pixels() -> None:
    image = ImageConfig(size=(64, 32))
    assert completed(ImageConfig, image.identity()).keys() == ImageConfig.model_fields.keys() - {"max_pixels"} | {
        "rules"
    }
    assert ImageConfig(size=(64, 32), max_pixels=5).identity() == image.identity()
    assert ImageConfig(size=(32, 64)).identity() != image.identity()
    assert ImageConfig(size=(64, 32), interpolation="bilinear").identity() != image.identity()
    # What came later is left out where it changes nothing, so that stores of before are gone on with.
    assert {"resize_to", "views", "plain"} & image.identity().keys() == set()
    assert ImageConfig(size=(64, 32), views={"random": 2}).identity()["views"]["random"] == 2


def sections() -> list[ast.ClassDef]:
    files = sorted(Path(config.__file__).parent.glob("*.py"))
    return [
        node
        for file in files
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Section" for base in node.bases)
    ]


def test_every_section_is_found_by_the_test_of_documentation() -> None:
    assert {node.name for node in sections()} == {model.__name__ for model in Section.__subclasses__()}


@pytest.mark.parametrize("section", sections(), ids=lambda node: node.name)
def test_every_section_and_every_field_of_it_has_a_sentence(section: ast.ClassDef) -> None:
    assert ast.get_docstring(section)
    names = {node.name for node in sections()}
    for field, after in zip(section.body, [*section.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign):
            continue
        assert isinstance(field.target, ast.Name)
        if isinstance(field.annotation, ast.Name) and field.annotation.id in names:
            continue  # a section, with a sentence of its own
        documented = (
            isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
        )
        assert documented, f"{section.name}.{field.target.id} has no sentence under it"
