"""Which names of members say that they are images."""

from pipeline.config import SourceConfig
from pipeline.source.extensions import IMAGE_EXTENSIONS, why_no_image
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection


def test_a_member_of_a_later_format_is_no_image_beside_a_common_one() -> None:
    """Samples that were tokenized before there were such formats stay what they are."""
    selection = Selection(SourceConfig(shards="x.tar"))
    for extension in ("avif", "tga", "jp2", "heic", "mask.tga"):
        assert selection.image(Sample(0, "a", {"jpg": b"1", extension: b"2"})) == b"1"
        assert selection.image(Sample(0, "a", {extension: b"2", "txt": b"3"})) == b"2"


def test_extensions_are_in_lower_case_and_have_no_dots() -> None:
    assert all(name == name.lower() and "." not in name for name in IMAGE_EXTENSIONS)


def test_the_reason_lists_what_was_there_and_what_to_set() -> None:
    reason = why_no_image(["txt", "npy"], None)
    assert ".npy, .txt" in reason
    assert "source.image" in reason
    assert why_no_image(["tar.gz"], None).endswith("tars in a tar are read with source.nested=true")
    assert "nested" not in why_no_image(["tar", "txt"], None)
    assert len(why_no_image([f"x{number}" for number in range(10_000)], "jpg")) < 250
