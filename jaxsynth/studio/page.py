"""The page of `jaxsynth studio`: NiceGUI's widgets around `jaxsynth.studio.work.Studio`."""

import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from nicegui import app, events, run, ui
from starlette.middleware.trustedhost import TrustedHostMiddleware

from jaxsynth.recipes import RECIPES
from jaxsynth.studio.widgets import Figure, Term, choice, slider
from jaxsynth.studio.work import MOST_SEEDS, Studio, Wish, model_names

HOST = "127.0.0.1"
_TICK = 0.4  # seconds between updates of the page
_LARGEST = 64_000_000  # bytes of a photograph
_NOTE = (
    "Generated images can be suggestive. What open_nsfw scores above 0.5 is blurred until it is "
    "clicked."
)
_CSS = """
body { font-size: 15px; }
.nicegui-content { padding: 1rem; gap: 1rem; align-items: stretch; }
.studio { display: grid; grid-template-columns: minmax(0, 22rem) minmax(0, 1fr); gap: 1.5rem;
  width: 100%; align-items: start; }
.looks { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem;
  width: 100%; }
.look { margin: 0; } .look img { width: 100%; aspect-ratio: 1; border-radius: 8px; display: block; }
.look figcaption { font-size: .82rem; min-height: 2.6em; overflow-wrap: anywhere;
  white-space: pre-line; margin: .3rem 0; }
.hidden-look img { filter: blur(16px) saturate(.7); } .cover { overflow: hidden; cursor: pointer;
  border-radius: 8px; }
.term { border: 1px solid #8884; border-radius: 8px; padding: .3rem .7rem .6rem; width: 100%;
  gap: 0; }
.wide { width: 100%; }
.q-uploader__subtitle { display: none; } .q-uploader__header { background: none; color: inherit; }
.q-uploader__list { min-height: 0; padding: 0; }
@media (max-width: 52rem) { .studio { grid-template-columns: minmax(0, 1fr); }
  .looks { grid-template-columns: 1fr 1fr; gap: .6rem; } }
"""


def make_server(studio: Studio, port: int) -> tuple[uvicorn.Server, socket.socket]:
    """Make the server of the page, and the socket that it is to be run with.

    Only this machine reaches it, and only pages of its own address do.

    Args:
      studio: what the page is of.
      port: of the address; 0 for any that is free.

    Raises:
      ValueError: If the port is taken.
    """
    try:
        door = socket.create_server((HOST, port))
    except OSError as error:
        raise ValueError(f"--port={port}: {error.strerror}: choose another, or 0 for any") from None
    studio.out.mkdir(parents=True, exist_ok=True)
    app.add_static_files("/out", studio.out)
    web = FastAPI()
    web.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    ui.run_with(
        web, root=lambda: _Page(studio), title="jaxsynth studio", dark=None, reconnect_timeout=60
    )
    return uvicorn.Server(uvicorn.Config(web, log_level="warning")), door


class _Page:
    """The widgets of one tab."""

    def __init__(self, studio: Studio):
        self.studio, self.version = studio, -1
        self.terms: list[Term] = []
        self.names = model_names()
        ui.add_css(_CSS)
        ui.label("jaxsynth studio").classes("text-xl font-semibold").props("role=heading")
        ui.label(_NOTE).classes("text-sm opacity-70")
        with ui.element("main").classes("studio"):
            with ui.column().classes("wide gap-2"):
                self._controls()
            with ui.column().classes("wide gap-2"):
                self._stage()
        ui.timer(_TICK, self._refresh)

    # --- inputs ---

    def _controls(self) -> None:
        studio = self.studio
        with ui.expansion("Networks").classes("wide"):
            own, judges = studio.generator.name, list(studio.classifiers)
            self.generator = choice("Generator", [own, *self.names["generator"]], own, self._use)
            names = list(dict.fromkeys([*judges, *self.names["classifier"]]))
            self.classifiers = choice("Classifiers", names, judges, self._use, multiple=True)
        with ui.column().classes("wide gap-2") as self.term_box:
            self._add_term()
        ui.button("Add a term", on_click=self._add_term).props("flat dense")
        self.seeds = slider("Pictures", 1, MOST_SEEDS, 8, 1)
        self.steps = slider("Steps", 1, 300, 40, 1)
        with ui.row().classes("wide no-wrap"):
            self.first = ui.number("First seed", value=0, min=0, max=2**32 - 9, precision=0)
            self.first.classes("w-1/3")
            recipe = studio.generator.recipe
            self.recipe = ui.select([*RECIPES], label="Recipe", value=recipe).classes("w-2/3")
        ui.upload(
            label="Drop a photograph to start from it",
            auto_upload=True,
            max_file_size=_LARGEST,
            on_upload=self._photograph,
            on_rejected=lambda: ui.notify("a file of 64 MB or less", type="negative"),
        ).props("accept=image/* flat bordered").classes("wide")
        with ui.row().classes("wide items-center no-wrap") as self.start_box:
            self.start = ui.element("img").classes("w-24 rounded")
            with ui.column().classes("gap-0 grow"):
                ui.label("The next pictures start from here.").classes("text-sm")
                self.spread = slider("Difference", 0, 2, 0.3, 0.05)
                ui.button("From seeds instead", on_click=lambda: studio.start_from(None)).props(
                    "flat dense"
                )
        self.go = ui.button("Make pictures", on_click=self._go).classes("wide")

    def _add_term(self) -> None:
        with self.term_box:
            self.terms.append(Term(self.studio, self.terms.remove))

    async def _use(self) -> None:
        await self._try(self.studio.use, self.generator.value, self.classifiers.value)
        for term in list(self.terms):
            term.offer()
        if not self.studio.busy:
            self.recipe.set_value(self.studio.generator.recipe)

    async def _photograph(self, event: events.UploadEventArguments) -> None:
        data = await event.file.read()
        event.sender.reset()  # type: ignore
        if await self._try(self.studio.start_from_photograph, data):
            self.recipe.set_value(self.studio.generator.recipe_from_image)

    async def _go(self) -> None:
        if self.studio.busy:
            return self.studio.stop()
        wish = Wish(
            [term.text for term in self.terms],
            self.recipe.value,
            int(self.steps.value),
            int(self.seeds.value),
            int(self.first.value or 0),
            self.spread.value,
        )
        await self._try(self.studio.paint, wish)

    async def _try(self, work: Callable[..., None], *given: Any) -> bool:
        """Do it in a thread; show the message of bad input."""
        try:
            await run.io_bound(work, *given)
        except ValueError as error:
            with self.stage:
                ui.notify(str(error), type="negative", multi_line=True, timeout=10_000)
            return False
        return True

    # --- outputs ---

    def _stage(self) -> None:
        self.said = ui.label().props("role=status").classes("text-sm")
        self.bar = ui.linear_progress(0, show_value=False).props("aria-label='steps done'")
        with ui.row().classes("items-center"):
            self.all = ui.switch("Show blurred pictures", on_change=self._cover)
            self.pages = ui.link("Open the report", "#", new_tab=True)
        self.stage = ui.element("section").classes("looks")
        self.figures: list[Figure] = []

    def _refresh(self) -> None:
        studio = self.studio
        if self.version == studio.version:
            return
        self.version = studio.version
        self.go.set_text("Stop" if studio.busy else "Make pictures")
        self.go.props(f"color={'negative' if studio.busy else 'primary'}")
        self.bar.set_value(studio.done / studio.steps)
        self.said.set_text(_said(studio))
        self.pages.set_visibility(studio.finished)
        self.pages.props(f"href=/out/{studio.folder.name}/index.html")
        self.start_box.set_visibility(studio.start is not None)
        if studio.start is not None:
            self.start.props["src"] = studio.start.url
            self.start.props["alt"] = studio.start.lines[0]
            self.start.update()
        if len(self.figures) != len(studio.looks):
            self.stage.clear()
            with self.stage:
                self.figures = [Figure(studio, number) for number in range(len(studio.looks))]
        for figure, look in zip(self.figures, studio.looks, strict=True):
            figure.show(look)
        self._cover()

    def _cover(self) -> None:
        for figure in self.figures:
            figure.cover(bool(self.all.value))


def _said(studio: Studio) -> str:
    if studio.busy and not studio.done:
        return "Compiling the networks. The first time takes a minute."
    if studio.busy:
        return f"Step {studio.done} of {studio.steps}"
    if studio.finished:
        return f"Saved in {studio.folder}"
    return (
        "Choose what to maximise. Every picture that is made is saved." if not studio.looks else ""
    )
