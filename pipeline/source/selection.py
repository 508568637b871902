"""What is taken of a sample: its image, its label, and the members to keep."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from pipeline.config import SourceConfig
from pipeline.errors import BadSample
from pipeline.source.extensions import IMAGE_EXTENSIONS, last_extension, preferred, why_no_image, why_several
from pipeline.source.labels.labels import Labels
from pipeline.source.sample import Sample


@dataclass(frozen=True)
class Selection:
    """The rules of a `source` section, applied to samples."""

    source: SourceConfig
    labels: Labels | None = None
    """Where indices of names are wanted, too."""

    def wants(self, extension: str) -> bool:
        """Whether a member with this extension is needed at all."""
        return extension in self.source.keep or extension == self._label_member or self.is_image(extension)

    def image(self, sample: Sample) -> bytes:
        """Bytes of the image member.

        Raises BadSample where there is none, or more than one without `source.image` saying which, and for a sample
        that has a problem of its own.
        """
        if sample.problems:
            raise BadSample(sample.problems[0])
        return sample.members[self._image_among(tuple(sample.members))] or b""

    def label(self, sample: Sample) -> int:
        """The class index, NO_LABEL without a label. Raises as `Labels.of` does."""
        if sample.problems:
            raise BadSample(sample.problems[0])  # which of two labels counts, nobody can tell
        return self._labels.of(sample)

    def fields(self, sample: Sample) -> dict[str, bytes | None]:
        """Kept members by extension; None where the sample has no such member."""
        return {name: sample.members.get(name) for name in self.source.keep}

    @cached_property
    def _image_among(self) -> Callable[[tuple[str, ...]], str]:
        """Which of some members is the image. Most samples of a source shard have the same ones."""
        return lru_cache(maxsize=256)(self._find_image)

    def _find_image(self, members: tuple[str, ...]) -> str:
        if self.source.image is not None and self.source.image in members:
            return self.source.image
        found = preferred(filter(self.is_image, members))
        if not found:
            raise BadSample(why_no_image(members, self.source.image))
        if len(found) > 1:
            raise BadSample(why_several(found))
        return found[0]

    @cached_property
    def _labels(self) -> Labels:
        return self.labels or Labels(self.source)

    @cached_property
    def _label_member(self) -> str | None:
        rule = self.source.label_rule
        return None if rule is None else rule.member

    def is_image(self, extension: str) -> bool:
        """Whether a member with this extension may be the image."""
        last = last_extension(extension)
        if self.source.image is not None:
            return self.source.image in (extension, last)
        return last in IMAGE_EXTENSIONS
