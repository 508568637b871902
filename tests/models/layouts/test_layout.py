"""Layouts are chosen by name among those that there are."""

import pytest

from pipeline.errors import ConfigError
from pipeline.models.layouts.cuts import CUTS, cut_named
from pipeline.models.layouts.layout import layout_among


def test_a_layout_is_found_by_its_name() -> None:
    for name, cut in CUTS.items():
        assert layout_among(CUTS.values(), name) is cut_named(name) is cut
        assert cut.name == name


def test_one_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"no block layout 'spiral'; known: raster, quadrants, diagonal$"):
        cut_named("spiral")
    with pytest.raises(ConfigError, match=r"no block layout 'raster'; known: diagonal$"):
        layout_among([CUTS["diagonal"]], "raster")
