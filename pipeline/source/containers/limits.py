"""How much memory strangers' files may ask for: each bound is a key of the section `source`, which raises it."""

from typing import NamedTuple, Self

from pipeline.config import SourceConfig


class Limits(NamedTuple):
    """Bounds for one source shard."""

    header_bytes: int = SourceConfig.model_fields["max_header_bytes"].default
    """Of what stands before a member of a tar: a long name, or extended attributes."""
    member_bytes: int = SourceConfig.model_fields["max_member_bytes"].default
    """Of a member that is read into memory."""
    expansion: int = SourceConfig.model_fields["max_expansion"].default
    """Bytes that come of each byte of a compressed tar."""

    @classmethod
    def of(cls, source: SourceConfig) -> Self:
        """Those of a configuration."""
        return cls(source.max_header_bytes, source.max_member_bytes, source.max_expansion)

    def too_large(self, size: int) -> str:
        """Why a member of so many bytes is not read; empty for one that is."""
        if size <= self.member_bytes:
            return ""
        return f"{size:,} bytes, more than source.max_member_bytes = {self.member_bytes:,}"


DEFAULT = Limits()
