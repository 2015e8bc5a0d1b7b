"""What pictures share: colours, texts as they are, and how they are written."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.text import Text

from mvnas.errors import MvnasError, plain
from mvnas.system.disk import whole

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#8C8C8C"  # of Okabe and Ito: told apart by all, in grey print by marker
FORMATS = (".png", ".pdf", ".svg")


def save(figure: Figure, path: Path, error: type[MvnasError]) -> None:
    """Write a figure as PNG, PDF or SVG, by the suffix of `path`.

    Raises:
        MvnasError: an `error`, since the path has another suffix.
        FileError: the path cannot be written.
    """
    if path.suffix not in FORMATS:
        raise error(f"a plot must end in {', '.join(FORMATS)}, but got {path.name!r}")
    picture = io.BytesIO()  # matplotlib does not tell a full disk from a mistake of its own
    figure.savefig(picture, dpi=200, format=path.suffix[1:])
    with whole(path) as part:
        part.write_bytes(picture.getbuffer())


def literal(figure: Figure) -> Figure:
    """The figure with its texts as they are: what stands between the dollar signs of a folder's name is no formula."""
    axes = [axis for part in figure.axes for axis in (part.xaxis, part.yaxis)]
    ticks = {label for axis in axes for label in axis.get_ticklabels(which="both")}  # matplotlib's own, which are
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text not in ticks:
            text.set_parse_math(False)
            text.set_text(plain(text.get_text()))
    return figure
