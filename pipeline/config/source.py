"""Which samples, and what of them."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from pipeline.before import Before, concise
from pipeline.config.label import LabelRule
from pipeline.config.section import Label, Member, PathText, Patterns, Reached, Section, one_or_many
from pipeline.storage import Storage


class SourceConfig(Section):
    """Which images, and what of each sample is kept."""

    shards: Patterns
    """Tars in WebDataset form, compressed or not: paths, globs, brace patterns (`train-{0000..0255}.tar`), or URLs."""
    base: str | None = None
    """Folder or URL that part names are relative to; by default the literal folder of each pattern."""
    exclude: Patterns = ()
    """Patterns of source shards to leave out."""
    image: Member | None = None
    """Extension of the member, or column, that holds the image; by default the one that can be an image."""
    label: Label | None = "cls"
    """Where the class is found; null for none. The extension of a member, or a column (`cls` also finds a column
    `label`); `json:PATH` in the member `.json`, such as `json:meta.class_id`; `folder`, the first folder of the path;
    `prefix:_`, what comes before a separator in the name; `table:FILE`, a CSV of key and label, or a label a line in
    the order of the keys."""
    classes: Annotated[PathText | None, Before(None)] = None
    """File with the names of the classes, one a line in the order of their indices: for labels that are text. Those of
    `folder`, and of Parquet files of Hugging Face, are found without."""
    key: Annotated[Member | None, Before(None)] = None
    """Column of a Parquet file with the keys; by default the paths of the images, or else the numbers of the rows."""
    keep: Annotated[tuple[Member, ...], BeforeValidator(one_or_many)] = ()
    """Extensions of members, or columns, to carry into the store as they are, such as `txt` or `json`."""
    nested: Annotated[bool, Before(False)] = False
    """The tars hold tars, each a source shard that is read where it lies: ImageNet's tar of a tar for each class."""
    regroup: Annotated[bool, Before(False)] = False
    """Bring together the members of samples that stand apart in local tars that are not compressed."""
    max_member_bytes: Annotated[int, Field(ge=1)] = 1 << 28
    """A sample with a larger image, label or kept member is rejected before that is read."""
    max_kept_bytes: Annotated[int, Field(ge=1)] = 1 << 32
    """Of all kept members of a source shard, which memory holds until it is written; one with more fails."""
    max_header_bytes: Annotated[int, Field(ge=512)] = 1 << 20
    """A tar with a longer name of a member, or more extended attributes of one, fails."""
    max_expansion: Annotated[int, Field(ge=1)] = 200
    """A compressed tar fails of which more than a gigabyte, and more than so many times its size, comes out."""
    allow_unterminated: bool = False
    """Accept a tar that ends at a member boundary without its end-of-archive marker."""
    allow_pipe: bool = False
    """Run the shell commands of `pipe:` sources, whose output is a tar. Only for configurations that you trust."""

    storage: Reached = Storage()
    """How URLs are reached: endpoint, profile, region, anonymous, patience_s."""

    @property
    def label_rule(self) -> LabelRule | None:
        """`label`, taken apart."""
        return None if self.label is None else LabelRule.of(self.label)

    def identity(self) -> dict[str, Any]:
        """All that decides what a row holds beside its tokens."""
        tree = self.model_dump(mode="json", include={"image", "label", "key", "keep"})
        return {**concise(SourceConfig, tree), "keep": sorted(self.keep)}
