"""The birth of a store: what every token in it is, decided by whoever creates `store.json` first."""

import contextlib
import math
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from pipeline.before import Before
from pipeline.errors import CorruptStore, IdentityMismatch, StoreError
from pipeline.files import Files
from pipeline.files.damage import damaged, naming_no_file
from pipeline.models.layouts.cuts import CUTS
from pipeline.models.layouts.scales import NAME as SCALES
from pipeline.records import JSON, Geometry, Record, differences, digest_of
from pipeline.store.schema import names
from pipeline.store.schema.commits import committed_parts
from pipeline.store.schema.identity import completed_identity
from pipeline.store.schema.names import Step
from pipeline.store.schema.seals import sealed, unsealed

FORMAT: Literal["vqtok"] = "vqtok"
VERSION: Literal[1] = 1

VIEWS = "views"
DIGESTS = "digests"
CLASSES = "classes"
FEATURES: frozenset[str] = frozenset({VIEWS, DIGESTS, CLASSES})
"""What a store may have beyond the first stores of this format, as far as this version reads it."""


_RESTORE = "restore it from a copy of the store"
_PROOFS = 3

# Far beyond what anybody makes: memory is asked for by these numbers, whatever files there are.
_MOST_CODES = 1 << 26
_MOST_TOKENS = 1 << 24


class CodebookRecord(Record):
    """What the tokens index into."""

    kind: Literal["table", "fsq", "implicit"]
    """`table`: the array tokens.zarr/codebook; `fsq`: finite scalar quantization; `implicit`: no table."""
    vocab_size: Annotated[int, Field(ge=1, le=_MOST_CODES)]
    embedding_dim: Annotated[int, Field(ge=1, lt=1 << 32)]
    levels: tuple[int, ...] | None = None
    """Levels per dimension, for `fsq`."""
    sha256: str | None = None
    """Digest of the float32 little-endian table in row-major order."""


class Birth(Record):
    """Contents of `store.json`: created exclusively, never changed."""

    format: Literal["vqtok"] = FORMAT
    version: Literal[1] = VERSION
    features: Annotated[tuple[str, ...], Before(())] = ()
    """What a reader must know beyond the first stores of this format: one that does not know them all refuses."""
    identity: JSON
    """All that decides token values, as a tree of named fields."""
    geometry: Geometry
    codebook: CodebookRecord
    var_input: Step
    """How indices become embeddings: `lookup` in the codebook, or the name of another rule."""
    rule_digest: Annotated[str | None, Before(None)] = None
    """Content digest of tokens.zarr/rule/<var_input>, what the rule needs beside the codebook; left out for nothing."""
    views: Annotated[int | None, Before(None)] = Field(default=None, ge=1)
    """Crops of each image, each with tokens of its own: the dimension `view`. None for stores without it."""
    token_dtype: Literal["uint8", "uint16", "uint32"]
    """The smallest unsigned type that holds vocab_size - 1."""
    fields: tuple[Step, ...]
    """Extensions of the members that are kept with each sample."""
    classes: Annotated[tuple[str, ...] | None, Before(None)] = None
    """Names of the labels' classes, in the order of their indices; None where nobody tells them."""
    codec: Literal["lz4", "raw"]

    @property
    def has_digests(self) -> bool:
        """Whether every record of the store says by digests what it speaks of."""
        return DIGESTS in self.features

    def written(self, record: Record) -> bytes:
        """A record of the whole store as its file has it: with a digest of itself, where the store has digests."""
        return sealed(record.to_json()) if self.has_digests else record.to_json()

    @property
    def attributes(self) -> JSON:
        """Attributes of the root of the hierarchy, for readers that know only Zarr."""
        return {
            "format": self.format,
            "version": self.version,
            "fingerprint": self.fingerprint,
            "geometry": self.geometry.tree(),
            "codebook": self.codebook.tree(),
            "var_input": self.var_input,
        }

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of the tokens of one row: (L_total,), or (views, L_total)."""
        tokens = (self.geometry.num_tokens,)
        return tokens if self.views is None else (self.views, *tokens)

    @property
    def fingerprint(self) -> str:
        """Digest of the identity."""
        return digest_of(self.identity)


def smallest_token_dtype(vocab_size: int) -> Literal["uint8", "uint16", "uint32"]:
    """The smallest unsigned dtype that holds vocab_size - 1."""
    if vocab_size <= 1 << 8:
        return "uint8"
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def read_birth(files: Files) -> Birth:
    """Read `store.json`.

    Raises StoreError where there is no store, or one of another format version or with features that nobody here
    knows.
    """
    data = _read(files)
    if data is None:
        refuse_lost_birth(files)
        raise StoreError(f"{files.root}: not a token store (no {names.STORE}); {_remedy(files)}")
    _refuse_unknown_features(files, data)
    try:
        record, is_sealed = unsealed(data)
        birth = Birth.model_validate_json(record)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":  # cut off
            raise damaged(files, names.STORE, f"the store is damaged: {first['msg']}; {_RESTORE}") from None
        where = ".".join(str(step) for step in first["loc"])
        raise StoreError(
            f"{files.root}/{names.STORE}: {where}: {first['msg']}; the store is damaged or of a later "
            f"version than format {VERSION}: use the vqtok that wrote it"
        ) from None
    except ValueError as error:
        raise damaged(files, names.STORE, f"{error}; {_RESTORE}") from None
    wrong = "it has lost its own sha256" if birth.has_digests and not is_sealed else _disagreement(birth)
    if wrong:
        raise damaged(files, names.STORE, f"the store is damaged: {wrong}; {_RESTORE}")
    return birth


def _disagreement(birth: Birth) -> str:
    """In what a birth contradicts itself; `` for a sound one."""
    geometry, codebook = birth.geometry, birth.codebook
    dtype = smallest_token_dtype(codebook.vocab_size)
    if birth.token_dtype != dtype:
        return f"token_dtype {birth.token_dtype} for {codebook.vocab_size:,} codes, which {dtype} holds"
    if codebook.levels is not None and math.prod(codebook.levels) != codebook.vocab_size:
        return f"levels {codebook.levels} for {codebook.vocab_size:,} codes"
    if not all(0 < cells <= pixels for cells, pixels in zip(geometry.grid, geometry.image_size, strict=True)):
        return f"a grid of {geometry.grid} tokens on {geometry.image_size} pixels"
    if math.prod(geometry.grid) > _MOST_TOKENS:
        return f"a grid of {geometry.grid} tokens, more than the {_MOST_TOKENS:,} that an image may have"
    tokens = geometry.num_tokens * (birth.views or 1)
    if any(length < 0 for length in geometry.block_lengths) or not 0 < tokens <= _MOST_TOKENS:
        return f"block_lengths {geometry.block_lengths} of {birth.views or 1} views"
    if geometry.layout in CUTS:
        lengths = CUTS[geometry.layout].block_lengths(geometry.grid)
        if lengths != geometry.block_lengths:
            return f"block_lengths {geometry.block_lengths}, {lengths} in layout {geometry.layout}"
    if geometry.layout == SCALES and geometry.block_lengths[-1:] != (math.prod(geometry.grid),):
        return f"block_lengths {geometry.block_lengths} on a grid of {geometry.grid} tokens"
    return ""


def is_born(files: Files) -> bool:
    """Whether there is a store."""
    with naming_no_file(files, names.STORE):
        try:
            files.stat(names.STORE)
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def refuse_unknown_features(files: Files) -> None:
    """Raise StoreError for a store with features that this version does not know; none at all is fine.

    For whoever reads other files of a store before its birth: what is in them may depend on features.
    """
    data = _read(files)
    if data is not None:
        _refuse_unknown_features(files, data)


class _Demands(BaseModel):
    """What any version can tell of the `store.json` of any other."""

    features: tuple[str, ...] = ()


def _refuse_unknown_features(files: Files, data: bytes) -> None:
    try:
        features = _Demands.model_validate_json(data).features
    except ValidationError:
        return  # damaged, which is for others to say
    unknown = [feature for feature in features if feature not in FEATURES]
    if unknown:
        raise StoreError(
            f"{files.root}: the store has {', '.join(map(repr, unknown))} among its features ({names.STORE}), which "
            "this version of vqtok does not know; upgrade vqtok to use it"
        )


def refuse_lost_birth(files: Files) -> None:
    """Raise CorruptStore where parts are committed and nothing says what their tokens are, as half a copy leaves it.

    A new `store.json` would take them for tokens of whatever tokenizer comes next.
    """
    try:
        parts = committed_parts(files)
    except CorruptStore:  # something else in the place of the folder, which is for others to say
        return
    if parts and not is_born(files):  # in this order: another process may have begun a store meanwhile
        raise damaged(
            files,
            names.STORE,
            f"missing, though {len(parts):,} parts are committed: finish copying the store, or {_RESTORE}",
        )


def create_or_compare(files: Files, birth: Birth) -> Birth:
    """Create the store as `birth` says, or make sure that it was born equal. Returns the birth of the store.

    Whoever is going to write into it proves first that the place can tell the first of two writers, also where a store
    is already: it may have moved to another server, or have another proxy before it.

    Raises IdentityMismatch naming every field that differs, with both values, StoreError where the place cannot tell
    the first of two writers, CorruptStore where only `store.json` is missing.
    """
    is_old = is_born(files)
    if not is_old:
        refuse_lost_birth(files)
        _prove_exclusive_creation(files)
        if files.put_if_absent(names.STORE, birth.written(birth)):
            return birth
    present = read_birth(files)
    refuse_other_birth(files, birth, present)
    if is_old:
        _prove_exclusive_creation(files)
    return present


def refuse_other_birth(files: Files, birth: Birth, present: Birth) -> None:
    """Raise IdentityMismatch unless a store that is `present` may be gone on with as `birth`."""
    lines = differences(_compared(birth), _compared(present))
    if lines:
        raise IdentityMismatch(
            "\n  ".join([f"{files.root}: this configuration makes other tokens than the store holds (there):", *lines])
            + "\nName another tokenize.store, or go back to the store's settings."
        )


def _compared(birth: Birth) -> JSON:
    # A store that was begun before there were digests goes on without them: they decide no token. And of processes
    # that look at a growing collection each sees other classes: those of the first one count for all.
    features = [feature for feature in birth.features if feature not in (DIGESTS, CLASSES)]
    tree = {**birth.model_dump(mode="json"), "identity": completed_identity(birth.identity), "features": features}
    return {**tree, "classes": None}


def _remedy(files: Files) -> str:
    """For a folder without a store: where one is, if beside it or in it, as `vqtok run` makes them."""
    above, _, name = files.root.rstrip("/").rpartition("/")
    if name == names.HIERARCHY:
        return f"name the folder that it is in, {above or '.'}"
    with contextlib.suppress(OSError, StoreError):
        files.stat(f"store/{names.STORE}")
        return f"{files.root}/store is one"
    return "run vqtok tokenize first"


def _read(files: Files) -> bytes | None:
    """`store.json`; None where there is no store."""
    with naming_no_file(files, names.STORE, f"no file, {_RESTORE}"):
        try:
            return files.read(names.STORE)
        except (FileNotFoundError, NotADirectoryError):
            return None


def _prove_exclusive_creation(files: Files) -> None:
    """Raise StoreError unless the second of two creations of one file is refused.

    Some servers that speak S3 accept `If-None-Match: *` and overwrite all the same; there the second commit of
    a part would replace the first.
    """
    # `vqtok clean` may come by, and delete the probe between two steps: another one tells more.
    if not any(_creates_exclusively(files) for _ in range(_PROOFS)):
        raise overwriting(files)


def _creates_exclusively(files: Files) -> bool:
    probe = names.new_probe()
    try:
        created = files.put_if_absent(probe, b"first"), files.put_if_absent(probe, b"second")
        with contextlib.suppress(FileNotFoundError):
            return created == (True, False) and files.read(probe) == b"first"
        return False
    finally:
        files.delete(probe)


def overwriting(files: Files) -> StoreError:
    """The error for a place that cannot tell the first of two writers."""
    return StoreError(
        f"{files.root}: this place overwrites where a file should only be created (PUT with If-None-Match: *), so "
        "that two processes could commit one part; keep the store on a server that honours it, or on a local disk"
    )
