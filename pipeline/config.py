"""The YAML configuration: one frozen model per section, a sentence under each field."""

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from pipeline.before import concise
from pipeline.errors import ConfigError

# Raised whenever the same image file and configuration would become other pixels.
PIXEL_RULES = 2


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads `yes`, `on`, `no` and `off` as booleans too, and pydantic would count them as 1 and 0."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("true or false does not belong here; quote the word if a text is meant")
        return value


def _one_or_many(value: Any) -> Any:
    if isinstance(value, str):
        return [value] if value else []  # an unset variable with an empty default names nothing
    return value


def _both_sides(value: Any) -> Any:
    # Text too: the value of an environment variable is one.
    return (value, value) if isinstance(value, int | str) else value


Patterns = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
Side = Annotated[int, Field(ge=1, le=16384)]
PathText = Annotated[str, Field(min_length=1)]
Extension = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


class SourceConfig(Section):
    """Which images, and what of each sample is kept."""

    shards: Patterns
    """Tar files in WebDataset form: paths, globs, brace patterns such as `train-{0000..0255}.tar`, or URLs of them."""
    base: str | None = None
    """Folder or URL that part names are relative to; by default the literal folder of each pattern."""
    exclude: Patterns = ()
    """Patterns of source shards to leave out."""
    image: Extension | None = None
    """Extension of the member that holds the image; by default the one whose last extension is an image's."""
    label: Extension | None = "cls"
    """Extension of the member that holds the class index as text; null for none."""
    keep: Annotated[tuple[Extension, ...], BeforeValidator(_one_or_many)] = ()
    """Extensions of members to carry into the store as they are, such as `txt` or `json`."""
    allow_unterminated: bool = False
    """Accept a tar that ends at a member boundary without its end-of-archive marker."""
    allow_pipe: bool = False
    """Run the shell commands of `pipe:` sources, whose output is a tar. Only for configurations that you trust."""

    def identity(self) -> dict[str, Any]:
        """All that decides what a row holds beside its tokens."""
        tree = self.model_dump(mode="json", include={"image", "label", "keep"})
        return {**concise(SourceConfig, tree), "keep": sorted(self.keep)}


class ImageConfig(Section):
    """From a decoded image of any size to the pixels that are encoded."""

    size: Annotated[tuple[Side, Side], BeforeValidator(_both_sides)]
    """Height and width in pixels; one number means both."""
    resize: Literal["shortest", "stretch", "none"] = "shortest"
    """`shortest` scales until the image just covers `size`, `stretch` ignores the aspect ratio."""
    crop: Literal["center", "none"] = "center"
    """What is cut from the resized image; with `none` an image of another size is rejected."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Resampling filter, always antialiased."""
    decoder: Literal["torchvision", "turbojpeg", "nvjpeg"] = "torchvision"
    """What decodes RGB and grey JPEG files: torchvision; `turbojpeg`, at a smaller scale where that will do; `nvjpeg`,
    on the GPU. Everything else is read by Pillow."""
    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """A larger image is rejected before it is decoded."""

    def identity(self) -> dict[str, Any]:
        """All that decides the pixels, and so the tokens."""
        tree = self.model_dump(mode="json", exclude={"max_pixels"})
        return {**concise(ImageConfig, tree), "rules": PIXEL_RULES}


class TokenizerConfig(Section):
    """The tokenizer folder: written by `vqtok train`, read by `vqtok tokenize`."""

    path: PathText
    """Folder with config.json and model.safetensors; by default `runs/<name of the configuration file>/tokenizer`."""


class ModelConfig(Section):
    """Arguments of `SimpleVQVAE`; the defaults are the plain published model."""

    vocab_size: Annotated[int, Field(ge=2)] = 16
    """K, the number of codes."""
    embedding_dim: Annotated[int, Field(ge=1)] = 64
    """C, the length of a code."""
    hidden_dim: Annotated[int, Field(ge=1)] = 128
    """Channels inside encoder and decoder."""
    beta: Annotated[float, Field(ge=0)] = 0.25
    """Weight of the commitment loss."""
    residual_blocks: Annotated[int, Field(ge=0)] = 0
    """Residual blocks at the lowest resolution of encoder and decoder."""
    final_relu: bool = True
    """Whether the encoder ends in a ReLU, which leaves codes only the positive orthant."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Learn the codebook as an exponential moving average of what falls to each code."""
    kmeans_init: bool = False
    """Start the codebook from k-means over the images of the first optimizer step."""
    revive_after: Annotated[int, Field(ge=1)] | None = None
    """Replace a code that no vector fell to for this many optimizer steps."""
    cosine: bool = False
    """Compare by cosine similarity: vectors and codes are l2-normalised."""


class TrainConfig(Section):
    """Training of the tokenizer."""

    model: ModelConfig = ModelConfig()
    holdout: Patterns = ()
    """Source shards that training never sees, for PSNR and pictures."""
    steps: Annotated[int, Field(ge=1)] = 1000
    """Optimizer steps in all."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Images per step and process, before gradient accumulation."""
    gradient_accumulation: Annotated[int, Field(ge=1)] = 1
    """Batches per optimizer step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak of the schedule, reached after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps of linear warm-up, fewer than `steps`; a cosine to zero follows."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW."""
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this norm."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Mixed precision of encoder and decoder, `fp16` on GPUs only; the code search is always float32."""
    shuffle_buffer: Annotated[int, Field(ge=1)] = 1000
    """Samples shuffled among each other, from many places of the collection. Twice as many are held, encoded."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Worker processes that decode, per process."""
    log_every: Annotated[int, Field(ge=1)] = 20
    """Steps between lines of metrics.jsonl."""
    evaluate_every: Annotated[int, Field(ge=1)] = 200
    """Steps between evaluations on the held-out images, each with a picture."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 200
    """Steps between full-state checkpoints; training resumes from the newest."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of weights, shuffling and whatever else is random."""


class TokenizeConfig(Section):
    """The tokenization job."""

    store: PathText
    """Folder or URL of the token store; by default `runs/<name of the configuration file>/store`."""
    layout: str = "quadrants"
    """Block layout: raster, quadrants or diagonal."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Images encoded at once. Batches never cross source shards; the last one is padded."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Precision of the encoder; the code search is always float32. `tf32` is for CUDA."""
    decode_workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Decoding threads per process; `auto` shares the CPU cores among the processes of this host."""
    codec: Literal["lz4", "raw"] = "lz4"
    """How token and label chunks are compressed; `raw` reads fastest."""
    max_reject_rate: Annotated[float, Field(ge=0, le=1)] = 1.0
    """A source shard that rejects a larger share of its samples fails instead of being committed."""
    claim_timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds without a heartbeat after which another process takes a source shard over."""
    stall_timeout: Annotated[float, Field(gt=0)] | None = 600.0
    """Seconds after which a single step (a read, an image, a batch, a part) counts as hung; null for never."""


class LoaderConfig(Section):
    """What `TokenLoader.from_config` takes from the file; the names are those of TokenLoader's arguments."""

    batch_size: Annotated[int, Field(ge=1)] = 256
    """Samples per batch and process."""
    shuffle: bool = True
    """Whether every epoch has an order of its own; else the order of the store."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the shuffled orders."""
    remainder: Literal["uneven", "drop", "pad"] = "uneven"
    """What becomes of samples that do not fill a batch in every process."""
    parts_at_a_time: Annotated[int, Field(ge=0)] = 0
    """Shuffle only among so many parts at a time, where a local cache does not hold the whole store; 0: among all."""


class Config(Section):
    """The whole file."""

    source: SourceConfig
    image: ImageConfig
    tokenizer: TokenizerConfig
    tokenize: TokenizeConfig
    train: TrainConfig = TrainConfig()
    loader: LoaderConfig = LoaderConfig()


class ReaderConfig(Section):
    """The sections that a reader of the store needs. It may run where neither the images nor the environment
    variables that name them are."""

    tokenize: TokenizeConfig
    loader: LoaderConfig = LoaderConfig()


def examples() -> str:
    """The folder of the configurations that come with vqtok: in an installed package, or beside it in a clone."""
    package = Path(__file__).parent
    places = (package / "configs", package.with_name("configs"))
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        return "configs"  # as the sources of vqtok call it
    try:
        return os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder)
    except OSError:  # the working folder is gone
        return str(folder)


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply `section.key=value` overrides and check every field.

    Where the file names no place for the tokenizer or the store, they lie in `runs/<file name without extension>`
    below the working folder: a copy of a configuration has a run of its own.

    `${NAME}` in a value is the environment variable NAME; `${NAME:-default}` is `default` where NAME is unset or
    empty, as in a shell. Overrides are applied first, so that one can stand in for an unset variable.

    Raises ConfigError naming the file, the field, the value and what would be right.
    """
    return _load(Config, path, overrides)


def load_reader_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> ReaderConfig:
    """Read only what a reader of the store needs, by the rules of `load_config`; the other sections may say anything.

    Raises ConfigError naming the file, the field, the value and what would be right.
    """
    return _load(ReaderConfig, path, overrides)


_Model = TypeVar("_Model", Config, ReaderConfig)


def _load(model: type[_Model], path: str | os.PathLike[str], overrides: Sequence[str]) -> _Model:
    tree = _read_tree(path)
    for override in overrides:
        _apply_override(tree, override)
    # An unknown section stays, to be refused.
    tree = {name: keys for name, keys in tree.items() if name in model.model_fields or name not in Config.model_fields}
    tree = _expand_variables(tree, str(path))
    if Path(path).is_file():  # a pipe has no name that means anything
        _name_places(tree, Path(path).stem, model)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(detail, str(path)) for detail in error.errors())) from None


def _read_tree(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The sections of a YAML file as they are written."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        tree = yaml.safe_load(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file; there are some to copy in {examples()}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a configuration file: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds no sections; see {examples()}/sample.yaml")
    # A section whose keys are all commented out reads as null.
    return {name: {} if section is None else section for name, section in tree.items()}


_PLACES = (("tokenizer", "path", "tokenizer"), ("tokenize", "store", "store"))
"""Section and key of each folder that a run has for itself, and its name in there."""


def _name_places(tree: dict[str, Any], run: str, model: type[BaseModel]) -> None:
    """Fill in the folders of a run where the file leaves them open."""
    for section, key, folder in _PLACES:
        if section not in model.model_fields:
            continue
        keys = tree.setdefault(section, {})
        if isinstance(keys, dict) and keys.get(key) is None:
            keys[key] = f"runs/{run}/{folder}"


def _apply_override(tree: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    *sections, key = dotted.strip().split(".")
    if not equals or not sections or not all([*sections, key]):
        raise ConfigError(f"--set {override!r}: write it as section.key=value, such as tokenize.batch_size=32")
    node = tree
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        child = node[section]
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override!r}: {section} is not a section")
        node = child
    try:
        node[key] = yaml.safe_load(text)
    except yaml.YAMLError:
        node[key] = text  # a brace pattern such as {a,b}.tar is a fine string and bad YAML


# The default may hold a brace pattern: ${SHARDS:-train-{0000..0003}.tar}.
_VARIABLE = re.compile(r"\$\{(\w+)(?::-((?:[^{}]|\{[^{}]*\})*))?\}")


def _expand_variables(node: Any, file: str) -> Any:
    def value_of(match: re.Match[str]) -> str:
        name, default = match.groups()
        value = os.environ.get(name)
        if value is None and default is None:
            raise ConfigError(
                f"{file}: the environment variable {name} is not set; export it or use --set (in Python: set=[...])"
            )
        return value or default or ""

    if isinstance(node, dict):
        return {key: _expand_variables(child, file) for key, child in node.items()}
    if isinstance(node, list):
        return [_expand_variables(child, file) for child in node]
    return _VARIABLE.sub(value_of, node) if isinstance(node, str) else node


# Steps of an error's location that name alternatives of a type and not what the user wrote.
_PYDANTIC_STEPS = ("function-", "constrained-", "literal[")


def _explain(detail: Any, file: str) -> str:
    """One line for one pydantic error."""
    where = [str(step) for step in detail["loc"] if not str(step).startswith(_PYDANTIC_STEPS)]
    name = ".".join(where)
    if detail["type"] == "extra_forbidden":
        known = _fields_of(where[:-1])
        guess = get_close_matches(where[-1], known, n=1)
        hint = f"did you mean {guess[0]}?" if guess else f"known: {', '.join(known)}"
        return f"{file}: {name}: unknown key; {hint}"
    if detail["type"] == "missing":
        return f"{file}: {name}: missing"
    return f"{file}: {name}: {detail['msg']} (got {detail['input']!r})"


def _fields_of(where: list[str]) -> list[str]:
    model: type[BaseModel] = Config
    for step in where:
        model = model.model_fields[step].annotation  # type: ignore[assignment]
    return list(model.model_fields)
