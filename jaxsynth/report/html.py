"""The report: one `report.html` beside the images it shows, with no script and nothing remote."""

import html
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from jaxsynth.report.tables import column_order, format_value

BLUR_ABOVE = 0.5  # P(NSFW) above which a picture waits for a click
CONTENT_NOTE = (
    "These images were generated, not photographed: they show what a classifier responds to, and "
    "its neurons are the subject. Some can be suggestive. Those that the classifier scores above "
    f"{BLUR_ABOVE:g} are blurred until they are clicked."
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
    """One run of the gallery: its pictures, side by side, and its caption, the first line of which
    is the heading."""

    images: tuple[ReportImage, ...]
    lines: tuple[str, ...]


def write_report(
    path: str | os.PathLike[str],
    title: str,
    summary: Sequence[Mapping[str, Any]],
    runs: Sequence[ReportRun],
    note: str = "",
    command: str = "",
    config: Mapping[str, Any] | None = None,
    traces: str = "",
    strip: str = "",
    strip_nsfw: float | None = None,
    links: Sequence[str] = (
        "contact_sheet.png",
        "metrics.csv",
        "config.json",
        "results.safetensors",
    ),
) -> None:
    """Writes the report.

    Args:
      path: the HTML file.
      title: heading of the page.
      summary: table rows; columns in the order in which they first appear.
      runs: the gallery, in this order.
      note: what stands above the gallery, e.g. that it is a part.
      command: what to type to repeat the run.
      config: settings, name -> value.
      traces: image file of the traces' plot, relative to the report; "" for none.
      strip: image file of the paths from a photograph, likewise; "" for none.
      strip_nsfw: the highest P(NSFW) of its pictures; None if unknown.
      links: further files, relative to the report.
    """
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="note">{html.escape(CONTENT_NOTE)}</p>',
        f"<pre><code>{html.escape(command)}</code></pre>" if command else "",
        _links(links),
        _section("Summary", _table(summary)),
        _section("From the photograph", _strip(strip, strip_nsfw)),
        _section("Traces", _traces(traces)),
        _section("Images", _note(note) + _gallery(runs)),
        _section("Configuration", _config(config or {})),
    ]
    body = "\n".join(part for part in parts if part)
    page = _PAGE.format(title=html.escape(title), style=_STYLE, body=body)
    with open(path, "w", encoding="utf-8", errors="xmlcharrefreplace") as file:
        file.write(page)


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{heading}</h2>\n{content}\n</section>" if content else ""


def _links(files: Sequence[str]) -> str:
    anchors = [f'<a href="{_url(file)}">{html.escape(file)}</a>' for file in files]
    return f'<p class="links">{" ".join(anchors)}</p>' if anchors else ""


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    columns = column_order(rows)
    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    lines = [
        "".join(f"<td>{html.escape(format_value(row.get(c)))}</td>" for c in columns)
        for row in rows
    ]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _traces(file: str) -> str:
    return f'<img class="traces" src="{_url(file)}" alt="traces of all runs">' if file else ""


def _strip(file: str, nsfw: float | None) -> str:
    alt = "from the photograph to the end images"
    return f'<div class="strip">{_picture(file, nsfw, alt, "")}</div>' if file else ""


def _note(text: str) -> str:
    return f"<p>{html.escape(text)}</p>\n" if text else ""


def _gallery(runs: Sequence[ReportRun]) -> str:
    figures = "\n".join(_figure(run) for run in runs)
    return f'<div class="gallery">\n{figures}\n</div>' if runs else ""


def _figure(run: ReportRun) -> str:
    heading, *rest = run.lines
    several = len(run.images) > 1
    pictures = "".join(
        _picture(i.file, i.nsfw, f"{heading}, {i.which}", i.which if several else "")
        for i in run.images
    )
    caption = "<br>".join([f"<b>{html.escape(heading)}</b>", *map(html.escape, rest)])
    pair = " pair" if several else ""
    return f"""<figure class="run{pair}"><div class="pictures">{pictures}</div>
<figcaption>{caption}</figcaption></figure>"""


def _picture(file: str, nsfw: float | None, alt: str, tag: str) -> str:
    """A picture; above the threshold inside a label whose hidden checkbox lifts the blur."""
    image = f'<img src="{_url(file)}" alt="{html.escape(alt)}" loading="lazy">'
    badge = f"<i>{html.escape(tag)}</i>" if tag else ""
    if nsfw is None or not nsfw > BLUR_ABOVE:
        return f'<span class="picture">{image}{badge}</span>'
    box = f'<input type="checkbox" aria-label="show {html.escape(alt)}">'
    hint = f"<em>NSFW {nsfw:.2f}<br>click to show</em>"
    return f'<label class="picture blurred">{box}{image}{hint}{badge}</label>'


def _config(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    rows = "\n".join(
        f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(format_value(v))}</td></tr>"
        for k, v in config.items()
    )
    return f"<details><summary>all settings</summary>\n<table>\n{rows}\n</table></details>"


def _url(file: str) -> str:
    """A relative reference: quoted, so that `#`, `%`, `:` or `"` in a name do no harm."""
    return html.escape(quote(file, safe="/", errors="surrogateescape"))


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""

_STYLE = """\
:root { color-scheme: light dark; --paper: #fbfbf9; --ink: #22252a; --soft: #6b7076;
  --line: #dddcd6; --card: #ffffff; --note: #fdf3dc; --link: #2f6db3; }
@media (prefers-color-scheme: dark) { :root { --paper: #17191c; --ink: #e6e6e2; --soft: #9a9ea4;
  --line: #34383d; --card: #202327; --note: #33301f; --link: #7fb2ec; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 72rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; font-weight: 600; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; font-weight: 600; margin: 2.2rem 0 .7rem; }
a { color: var(--link); }
.note { background: var(--note); border-radius: 8px; padding: .7rem 1rem; max-width: 60rem; }
.links a { margin-right: 1.2rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .7rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { font-weight: 600; color: var(--soft); white-space: nowrap; }
.scroll td { white-space: nowrap; }
details table td { overflow-wrap: anywhere; }
summary { cursor: pointer; }
.traces { max-width: 100%; background: #fff; border-radius: 8px; border: 1px solid var(--line); }
.gallery { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(10.4rem, 1fr)); }
.run { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .6rem; }
.pair { grid-column: span 2; }
.pictures { display: flex; gap: .4rem; }
.picture { position: relative; flex: 1; overflow: hidden; border-radius: 4px; aspect-ratio: 1; }
.picture img { width: 100%; height: 100%; object-fit: contain; display: block; }
.picture i { position: absolute; left: .3rem; bottom: .3rem; padding: 0 .4rem; border-radius: 3px;
  background: #0009; color: #fff; font: .72rem/1.5 system-ui, sans-serif; }
.strip { border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.strip .picture { display: block; aspect-ratio: auto; border-radius: 0; }
.strip img { height: auto; }
.blurred { cursor: pointer; }
.blurred input { position: absolute; opacity: 0; }
.blurred img { filter: blur(14px) saturate(.7); transition: filter .2s; }
.blurred em { position: absolute; inset: 0; display: grid; place-content: center; color: #fff;
  text-align: center; font: 600 .8rem/1.4 system-ui, sans-serif; text-shadow: 0 0 6px #000; }
.blurred input:checked ~ img { filter: none; }
.blurred input:checked ~ em { display: none; }
.blurred:focus-within { outline: 2px solid var(--link); }
figcaption { margin-top: .45rem; font-size: .82rem; color: var(--soft); overflow-wrap: anywhere; }
figcaption b { color: var(--ink); font-weight: 600; }
@media (max-width: 30rem) { .gallery { grid-template-columns: 1fr 1fr; } }
"""
