"""The page of `jaxsynth studio`: NiceGUI's widgets around `jaxsynth.studio.work.Studio`."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from nicegui import app, events, run, ui
from starlette.middleware.trustedhost import TrustedHostMiddleware

from jaxsynth.recipes import RECIPES
from jaxsynth.studio.work import MOST_SEEDS, Look, Studio, Wish, model_names
from jaxsynth.terms import GENERATOR, LABELLED, MEASURES

HOST = "127.0.0.1"
_TICK = 0.4  # seconds between updates of the page
_LARGEST = 64_000_000  # bytes of a photograph
_NOTE = (
    "Generated images can be suggestive. What open_nsfw scores above 0.5 is blurred until it is "
    "clicked."
)


def make_server(studio: Studio, port: int) -> tuple[uvicorn.Server, socket.socket]:
    """Make the server of the page, and the socket to run it with; port 0 is any free one.

    Only this machine reaches it, and only pages of its own address do.
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
        self.terms: list[_Term] = []
        self.names = model_names()
        ui.add_css(Path(__file__).with_name("studio.css"))
        ui.label("jaxsynth studio").classes("text-xl font-semibold").props("role=heading")
        ui.label(_NOTE).classes("text-sm opacity-70")
        with ui.element("main").classes("studio"):
            with ui.column().classes("wide gap-2"):
                self._controls()
            with ui.column().classes("wide gap-2"):
                self._stage()
        ui.timer(_TICK, self._refresh)

    def _controls(self) -> None:
        studio = self.studio
        with ui.expansion("Networks").classes("wide"):
            own, judges = studio.generator.name, list(studio.classifiers)
            self.generator = _choice("Generator", [own, *self.names["generator"]], own, self._use)
            names = list(dict.fromkeys([*judges, *self.names["classifier"]]))
            self.classifiers = _choice("Classifiers", names, judges, self._use, multiple=True)
        with ui.column().classes("wide gap-2") as self.term_box:
            self._add_term()
        ui.button("Add a term", on_click=self._add_term).props("flat dense")
        self.seeds = _slider("Pictures", 1, MOST_SEEDS, 8, 1)
        self.steps = _slider("Steps", 1, 300, 40, 1)
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
                self.spread = _slider("Difference", 0, 2, 0.3, 0.05)
                ui.button("From seeds instead", on_click=lambda: studio.start_from(None)).props(
                    "flat dense"
                )
        self.go = ui.button("Make pictures", on_click=self._go).classes("wide")

    def _add_term(self) -> None:
        with self.term_box:
            self.terms.append(_Term(self.studio, self.terms.remove))

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

    def _stage(self) -> None:
        self.said = ui.label().props("role=status").classes("text-sm")
        self.bar = ui.linear_progress(0, show_value=False).props("aria-label='steps done'")
        with ui.row().classes("items-center"):
            self.all = ui.switch("Show blurred pictures", on_change=self._cover)
            self.pages = ui.link("Open the report", "#", new_tab=True)
        self.stage = ui.element("section").classes("looks")
        self.figures: list[_Figure] = []

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
                self.figures = [_Figure(studio, number) for number in range(len(studio.looks))]
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
    return "" if studio.looks else "Choose what to maximise. Every picture that is made is saved."


# --- widgets --------------------------------------------------------------------------------------


class _Term:
    """A term of the objective; `leave` is called when it is removed."""

    def __init__(self, studio: Studio, leave: Callable[["_Term"], None]):
        self.studio, self._leave = studio, leave
        with ui.column().classes("term") as self.box:
            with ui.row().classes("wide no-wrap items-center"):
                self.network = _choice("Network", [], None, self.offer)
                ui.button(icon="close", on_click=self._remove).props(
                    "flat round dense aria-label='remove this term'"
                )
            self.blob = _choice("Layer", [], None, self._offer_units)
            self.unit = _choice("Class or unit", {}, None)
            self.weight = _slider("Weight", -2, 2, 1, 0.05)
        self.offer()

    @property
    def text(self) -> str:
        """The term as `jaxsynth.parse` reads it."""
        how = ":mean" if len(self._shapes()[self.blob.value]) > 1 else ""
        unit = f"{self.unit.value}{how}"
        return f"{self.network.value}:{self.blob.value}:{unit}:{self.weight.value:g}"

    def offer(self) -> None:
        """Offer what there is of the networks that are loaded."""
        names = [*self.studio.classifiers, GENERATOR]
        chosen = self.network.value if self.network.value in names else names[0]
        self.network.set_options(names, value=chosen)
        blobs = self._shapes()
        first = [blob for blob in ("log_odds", "image_tv") if blob in blobs]
        chosen = self.blob.value if self.blob.value in blobs else (*first, *blobs)[0]
        self.blob.set_options([*blobs], value=chosen)
        self._offer_units()

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        model = self.studio.classifiers.get(self.network.value)
        if model is None:
            return dict.fromkeys(MEASURES, (1,))
        classes = [b for b in (*LABELLED[::-1], model.logits) if b in model.shapes]
        return {blob: model.shapes[blob] for blob in dict.fromkeys([*classes, *model.shapes])}

    def _offer_units(self) -> None:
        model = self.studio.classifiers.get(self.network.value)
        count = self._shapes()[self.blob.value][-1]
        known = model is not None and self.blob.value in (*LABELLED, model.logits)
        names = model.class_names if model and known else map(str, range(count))
        chosen = self.unit.value if self.unit.value is not None and self.unit.value < count else 0
        self.unit.set_options(dict(enumerate(names)), value=chosen)
        self.unit.set_visibility(count > 1)

    def _remove(self) -> None:
        self._leave(self)
        self.box.delete()


class _Figure:
    """A picture with its caption and buttons; a click uncovers it."""

    def __init__(self, studio: Studio, number: int):
        self.studio, self.open = studio, False
        self.look: Look | None = None
        with ui.element("figure").classes("look"):
            self.box = ui.element("div").classes("cover").on("click", self._uncover)
            with self.box:
                self.image = ui.element("img")
            with ui.element("figcaption"):
                self.lines = ui.label().classes("whitespace-pre-line")
            with ui.row().classes("gap-1"):
                ui.button("Go on", on_click=self._go_on).props(
                    f"dense outline size=sm aria-label='start from picture {number + 1}'"
                )
                self.save = ui.button("Save", on_click=self._save).props("dense outline size=sm")

    def show(self, look: Look) -> None:
        if look is not self.look:
            self.look = look
            self.image.props["src"], self.image.props["alt"] = look.url, ", ".join(look.lines)
            self.image.update()
            self.lines.set_text("\n".join(look.lines))
            self.save.set_enabled(look.file is not None)

    def cover(self, open_all: bool) -> None:
        hide = self.look is not None and self.look.hide and not (self.open or open_all)
        self.box.classes(add="hidden-look" if hide else "", remove="" if hide else "hidden-look")

    def _uncover(self) -> None:
        self.open = True
        self.cover(False)

    def _go_on(self) -> None:
        self.studio.start_from(self.look)
        ui.notify("The next pictures start from this one.")

    def _save(self) -> None:
        if self.look is not None and self.look.file is not None:
            file = self.look.file
            ui.download.file(file, f"{file.parents[1].name}_{file.name}")


def _choice(label: str, options: Any, value: Any, changed: Any = None, **how: Any) -> ui.select:
    made = ui.select(options, label=label, value=value, on_change=changed, with_input=True, **how)
    return made.props("dense options-dense").classes("wide")


def _slider(label: str, low: float, high: float, value: float, step: float) -> Any:
    """Draw a slider below its name and value."""
    with ui.column().classes("wide gap-0"):
        said = ui.label().classes("text-sm")
        made = ui.slider(min=low, max=high, value=value, step=step)
        made.props(f"dense aria-label='{label}'")
        said.bind_text_from(made, "value", lambda value: f"{label}: {value:g}")
    return made
