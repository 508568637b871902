"""Names that mean harm to whoever reads them."""

WICKED = {
    "escape": "a\x1b[31mred\x1b[0m",
    "title": "a\x1b]0;title\x07",
    "paste": "a\x1b[201~rm",
    "c1": "a\x9b31m",
    "line": "a\nvqtok: all is well",
    "return": "a\rvqtok: all is well",
    "bidi": "a\u202egnp\u202c",
    "isolate": "a\u2067b\u2069",
    "zero width": "a\u200bb",
    "separator": "a\u2028b",
    "nul": "a\x01b",
    "delete": "a\x7f\x08b",
    "html": "<script>alert(1)</script>",
    "quote": "a'\"; rm -rf $HOME; `id` #",
    "surrogate": "a\udcffb",
}
"""What names may be made of to cheat whoever reads them on a terminal, in a shell or in a browser."""
