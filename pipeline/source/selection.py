"""What is taken of a sample: its image, its label, and the members to keep."""

from dataclasses import dataclass

from pipeline.config import SourceConfig
from pipeline.errors import BadLabel, BadSample
from pipeline.records import NO_LABEL
from pipeline.source.extensions import IMAGE_EXTENSIONS, last_extension, preferred, why_no_image, why_several
from pipeline.source.sample import Sample

_LABEL_RANGE = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Selection:
    """The rules of a `source` section, applied to samples."""

    source: SourceConfig

    def wants(self, extension: str) -> bool:
        """Whether a member with this extension is needed at all."""
        return extension in self.source.keep or extension == self.source.label or self.is_image(extension)

    def image(self, sample: Sample) -> bytes:
        """Bytes of the image member.

        Raises BadSample where there is none, or more than one without `source.image` saying which, and for a sample
        that has a problem of its own.
        """
        if sample.problems:
            raise BadSample(sample.problems[0])
        if self.source.image in sample.members:
            return sample.members[self.source.image] or b""
        found = preferred(extension for extension in sample.members if self.is_image(extension))
        if not found:
            raise BadSample(why_no_image(sample.members, self.source.image))
        if len(found) > 1:
            raise BadSample(why_several(sample.members))
        return sample.members[found[0]] or b""

    def label(self, sample: Sample) -> int:
        """The class index, NO_LABEL without a label member. Raises BadLabel where it is no integer."""
        if sample.problems:
            raise BadSample(sample.problems[0])  # which of two labels counts, nobody can tell
        data = sample.members.get(self.source.label) if self.source.label else None
        if data is None:
            return NO_LABEL
        try:
            label = int(data.decode("ascii"))
        except ValueError:
            raise BadLabel(f".{self.source.label} holds {data[:40]!r}, not an integer") from None
        if label not in _LABEL_RANGE:
            raise BadLabel(f".{self.source.label} holds {data[:40]!r}, which does not fit 64 bits")
        return label

    def fields(self, sample: Sample) -> dict[str, bytes | None]:
        """Kept members by extension; None where the sample has no such member."""
        return {name: sample.members.get(name) for name in self.source.keep}

    def is_image(self, extension: str) -> bool:
        """Whether a member with this extension may be the image."""
        last = last_extension(extension)
        if self.source.image is not None:
            return self.source.image in (extension, last)
        return last in IMAGE_EXTENSIONS
