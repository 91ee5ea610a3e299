"""One HTML page of finished runs: its content, and how the template is filled."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
import markupsafe

from jaxsynth.disk import write_atomic
from jaxsynth.report.sheet import CONTACT_SHEET
from jaxsynth.report.tables import Rows, column_order, format_probability, format_value
from jaxsynth.runs.folder import CONFIG, METRICS, RESULTS
from jaxsynth.table import BLUR_ABOVE

CONTENT_NOTE = (
    "These images are generated, not photographed: they show what a classifier responds to. Some "
    f"can be suggestive; those that it scores above {BLUR_ABOVE:g} are blurred until they are "
    "clicked."
)
P_NOTE = (
    "A probability P is a classifier's answer, no evidence of what a picture shows: random codes "
    "get confident answers, too."
)


class ReportImage(NamedTuple):
    """One picture of a run.

    Attributes:
      file: relative to the report.
      which: `last` or `best`.
      nsfw: its P(NSFW); None if unknown.
    """

    file: str
    which: str = "last"
    nsfw: float | None = None


class ReportRun(NamedTuple):
    """One run of the gallery: its pictures side by side, and its caption, a heading first."""

    images: tuple[ReportImage, ...]
    lines: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Page:
    """The content of a page. Files are relative to it.

    Attributes:
      title: heading of the page.
      summary: table rows; columns in the order in which they first appear.
      runs: the gallery, in this order.
      note: a text above everything.
      more: a text above the gallery, e.g. that it shows some of the runs.
      command: what to type to repeat the run.
      settings: name -> value.
      traces: image file of the traces' plot; "" for none.
      strip: image file of the film strip, likewise.
      strip_nsfw: the highest P(NSFW) of its pictures; None if unknown.
      links: further files.
      explorer: script with the explorer's data; "" for a page without an explorer.
    """

    title: str
    summary: Rows = ()
    runs: Sequence[ReportRun] = ()
    note: str = ""
    more: str = ""
    command: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    traces: str = ""
    strip: str = ""
    strip_nsfw: float | None = None
    links: Sequence[str] = (CONTACT_SHEET, METRICS, CONFIG, RESULTS)
    explorer: str = ""


def write_page(path: Path, page: Page) -> None:
    """Write a page next to the images it shows; it loads nothing remote."""
    _write(path, "report.html.jinja", "explorer.js", page=page)


def write_live_page(path: Path, title: str, command: str) -> None:
    """Write the page of a sweep under way; its data are in explorer/live.js beside it."""
    _write(path, "live.html.jinja", "live.js", title=title, command=command)


def _write(path: Path, template: str, script: str, **content: Any) -> None:
    content |= {"content_note": CONTENT_NOTE, "p_note": P_NOTE, "script": _part(script)}
    text = templates(Path(__file__).parent).get_template(template).render(content)
    write_atomic(path, text.encode("utf-8", "xmlcharrefreplace"))


def templates(folder: Path) -> jinja2.Environment:
    """Return the templates of a folder: they escape texts, and know numbers as tables have them."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, keep_trailing_newline=True
    )
    found.filters |= {"url": _url, "text": format_value, "columns": column_order}
    found.filters |= {"probability": format_probability, "words": _words}
    found.globals |= {"blur_above": BLUR_ABOVE, "css": _part("explorer.css")}
    return found


def _part(name: str) -> markupsafe.Markup:
    """A file of this package that the page holds as it is."""
    return markupsafe.Markup((Path(__file__).parent / name).read_text("utf-8"))


def _words(text: str) -> markupsafe.Markup:
    """A command as words that no line breaks, unless one is longer."""
    spans = re.sub(r"\S+", lambda word: f"<span>{markupsafe.escape(word[0])}</span>", text)
    return markupsafe.Markup(spans)


def _url(file: str) -> str:
    """A relative reference: quoted, so that `#`, `%`, `:` or `"` in a name do no harm."""
    return quote(file, safe="/", errors="surrogateescape")
