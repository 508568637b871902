"""A configuration that fits a collection, as commented YAML."""

import json
from pathlib import Path

from pipeline.config import examples
from pipeline.errors import ConfigError
from pipeline.files import is_url
from pipeline.jobs.inspecting.job import Inspection
from pipeline.jobs.inspecting.looking import CAPTIONS
from pipeline.jobs.inspecting.text import about
from pipeline.records import JSON

_SIZES = (32, 64, 128, 256)
_MOST_BATCH = {32: 250, 64: 128, 128: 64, 256: 32}
_STEPS_FOR_IMAGES = ((10_000, 1_500), (100_000, 5_000), (1_000_000, 20_000))
_MOST_STEPS = 100_000
_FEW_SHARDS = 3


def shipped(name: str) -> str:
    """The text of a configuration that comes with vqtok. Raises ConfigError where it cannot be read."""
    path = Path(examples(), f"{name}.yaml")
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; install vqtok anew") from error


def proposal(found: Inspection) -> str:
    """YAML that `vqtok tokenize --config` accepts.

    Raises ConfigError where no image was found that could be tokenized.
    """
    if not found.tally.rows:
        reasons = "; ".join([*found.problems, *(reason for reason, _ in found.tally.rejects.most_common(3))])
        raise ConfigError(
            f"{found.name}: no image that can be tokenized among {found.tally.samples:,} samples: {reasons}"
        )
    size = image_size(found)
    return (
        "\n".join([*_head(found), *_source(found), *_image(found, size), *_train(found, size), *_tokenize(size)]) + "\n"
    )


def image_size(found: Inspection) -> int:
    """What all images have, if they are small squares; else the largest usual size that half of them reach."""
    sides = found.short_sides()
    if len(found.tally.sizes) == 1 and len(set(next(iter(found.tally.sizes)))) == 1 and sides[0] <= _SIZES[-1]:
        return max(4, sides[0] - sides[0] % 4)
    median = sides[len(sides) // 2]
    return max((size for size in _SIZES if size <= median), default=_SIZES[0])


def _head(found: Inspection) -> list[str]:
    rows = "" if found.rows is None else f", {about(found.rows, found.complete)} images"
    return [
        f"# {_comment(found.kind)}{rows}; `vqtok inspect` says more.",
        "#",
        "#   vqtok run --config FILE        # train, tokenize, report",
        "#",
        f"# The tokenizer and the store come into runs/NAME. Every key is explained in {examples()}/sample.yaml.",
        *(f"#\n# Cannot be read: {_comment(problem)}" for problem in found.problems),
        *(f"#\n# Also there: {_comment(remark)}" for remark in found.remarks),
        "",
    ]


def _source(found: Inspection) -> list[str]:
    source = found.source
    shards = source.shards[0]
    if not is_url(shards):
        shards = str(Path(shards.removeprefix("file://")).expanduser().absolute())
        shards += "/" if source.shards[0].endswith("/") and not shards.endswith("/") else ""
    lines = ["source:", f"  shards: {_text(shards)}"]
    if reached := source.storage.model_dump(exclude_defaults=True):
        lines.append(f"  storage: {_text(reached)}")
    lines += [f"  {key}: true" for key in ("nested", "regroup") if getattr(source, key)]
    if found.columns():
        image = next((look.description.image for look in found.looks if look.description), None)
        lines.append(f"  image: {_text(image or '')}")
    lines += _label(found)
    kept = [name for name in ("json", *CAPTIONS) if found.tally.members[name]]
    if kept:
        lines.append(f"  keep: [{', '.join(kept)}]  # carried along with the tokens")
    return [*lines, ""]


def _label(found: Inspection) -> list[str]:
    tally = found.tally
    if tally.classes:
        return [f"  label: {_text(found.label_column() or 'cls')}"]
    folders = found.folders()
    named = _comment(", ".join(folders[:3])) + (", ..." if len(folders) > 3 else "")
    if found.are_splits():
        return [f"  label: null  # {named}: splits, it seems; name one of them above, and its folders may be classes"]
    if len(folders) > 1 and found.shards[0].listing is not None:
        return [f"  label: folder  # {named}: {len(folders):,} classes in the order of their names"]
    if len(folders) > 1:
        return [
            f"  # {named}: {len(folders):,} folders, classes perhaps. Write their names into a file, one a line, and:",
            "  # label: folder",
            "  # classes: classes.txt",
            "  label: null",
        ]
    remark = ["  # .json holds integers that may be labels: " + _comment(", ".join(tally.json_integers))]
    return [*(remark if tally.json_integers else []), "  label: null  # no labels were found"]


def _image(found: Inspection, size: int) -> list[str]:
    sides = found.short_sides()
    smaller = sum(side < size for side in sides)
    told = f"shorter sides are {sides[0]} to {sides[-1]} px, half of them {sides[len(sides) // 2]} or more"
    if len(found.tally.sizes) == 1:
        told = "as all images are, but for the rest of a division by 4" if size not in sides else "as all images are"
    enlarged = f"; {100 * smaller / len(sides):.0f}% are enlarged" if smaller else ""
    return ["image:", f"  size: {size}  # {told}{enlarged}", ""]


def _train(found: Inspection, size: int) -> list[str]:
    rows = found.rows or 0
    steps = next((steps for images, steps in _STEPS_FOR_IMAGES if rows <= images), _MOST_STEPS)
    large = size > 64
    return [
        "train:",
        "  # For PSNR and pictures of images that training never sees: name source shards, and exclude them above.",
        "  holdout: []",
        "  model:",
        f"    vocab_size: {1024 if large else 512}",
        f"    embedding_dim: {64 if large else 32}",
        f"    hidden_dim: {128 if large else 64}",
        "    residual_blocks: 2",
        "    final_relu: false",
        "    ema_decay: 0.99",
        "    kmeans_init: true",
        "    revive_after: 100",
        f"  steps: {steps}",
        f"  batch_size: {16 if large else 64}",
        f"  warmup_steps: {min(500, steps // 20)}",
        "",
    ]


def _tokenize(size: int) -> list[str]:
    batch = next((batch for side, batch in _MOST_BATCH.items() if size <= side), 32)
    return ["tokenize:", f"  batch_size: {batch}  # more on a GPU"]


def _text(value: str | JSON) -> str:
    """A value as YAML has it, which takes that of JSON but for its pairs of surrogates."""
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(character if character.isprintable() else f"\\U{ord(character):08x}" for character in quoted)


def _comment(text: str) -> str:
    """On one line, whatever strangers have called their files."""
    return "".join(character if character.isprintable() else "?" for character in text)
