"""The report as a page that opens in any browser, with nothing beside it."""

import base64
import html
from pathlib import Path
from string import Template

from torch import Tensor

from pipeline.jobs.reporting.figures import Report
from pipeline.printing import one_line, printable

_TEMPLATE = Path(__file__).with_name("report.html")


def report_page(report: Report, uses_K: Tensor, png: bytes | None) -> str:
    """report.html, self-contained.

    Args:
        uses_K: int64, how often each code occurs.
        png: originals above reconstructions, if the layout can be decoded.
    """
    rows = [f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in report.figures()]
    counted = report.reject_reasons.items()
    reasons = [f"<li>{count:,} × {html.escape(one_line(reason))}</li>" for reason, count in counted]
    picture = ""
    if png is not None:
        encoded = base64.b64encode(png).decode()
        picture = f'<img alt="originals above reconstructions" src="data:image/png;base64,{encoded}">'
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        store=html.escape(printable(report.store)),
        figures="\n".join(rows),
        picture=picture,
        histogram=_histogram(uses_K),
        reasons="<ul>" + "\n".join(reasons) + "</ul>" if reasons else "<p>none</p>",
        usage=html.escape(report.usage),
    )


def _histogram(uses_K: Tensor, bars: int = 256, height: int = 120) -> str:
    """Code use from the most to the least frequent code, as SVG."""
    sorted_uses = uses_K.sort(descending=True).values.double()
    columns = [float(chunk.mean()) for chunk in sorted_uses.tensor_split(min(bars, len(sorted_uses)))]
    most = max(columns[0], 1.0)
    rectangles = [
        f'<rect x="{x}" y="{height - height * value / most:.2f}" width="1" height="{height * value / most:.2f}"/>'
        for x, value in enumerate(columns)
    ]
    return f'<svg viewBox="0 0 {len(columns)} {height}" preserveAspectRatio="none">{"".join(rectangles)}</svg>'
