"""Widgets of the studio's page: a term of the objective, a picture, a list, a slider."""

from collections.abc import Callable
from typing import Any

from nicegui import ui

from jaxsynth.studio.work import Look, Studio
from jaxsynth.terms import GENERATOR, LABELLED, MEASURES


class Term:
    """A term of the objective: which unit of which layer, and its weight."""

    def __init__(self, studio: Studio, leave: Callable[["Term"], None]):
        """Draw it; `leave` is called when it is removed."""
        self.studio, self._leave = studio, leave
        with ui.column().classes("term") as self.box:
            with ui.row().classes("wide no-wrap items-center"):
                self.network = choice("Network", [], None, self.offer)
                ui.button(icon="close", on_click=self._remove).props(
                    "flat round dense aria-label='remove this term'"
                )
            self.blob = choice("Layer", [], None, self._offer_units)
            self.unit = choice("Class or unit", {}, None)
            self.weight = slider("Weight", -2, 2, 1, 0.05)
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


class Figure:
    """A picture with its caption and buttons; a click uncovers it."""

    def __init__(self, studio: Studio, number: int):
        """Draw an empty one, the `number`th from 0 on."""
        self.studio, self.open = studio, False
        self.look: Look | None = None
        with ui.element("figure").classes("look"):
            self.box = ui.element("div").classes("cover").on("click", self._uncover)
            with self.box:
                self.image = ui.element("img")
            self.said = ui.element("figcaption")
            with self.said:
                self.lines = ui.label().classes("whitespace-pre-line")
            with ui.row().classes("gap-1"):
                ui.button("Go on", on_click=self._go_on).props(
                    f"dense outline size=sm aria-label='start from picture {number + 1}'"
                )
                self.save = ui.button("Save", on_click=self._save).props("dense outline size=sm")

    def show(self, look: Look) -> None:
        """Show another picture in its place."""
        if look is not self.look:
            self.look = look
            self.image.props["src"], self.image.props["alt"] = look.url, ", ".join(look.lines)
            self.image.update()
            self.lines.set_text("\n".join(look.lines))
            self.save.set_enabled(look.file is not None)

    def cover(self, open_all: bool) -> None:
        """Blur it, if it is to be blurred."""
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
            ui.download.file(
                self.look.file, f"{self.look.file.parents[1].name}_{self.look.file.name}"
            )


def choice(
    label: str, options: Any, value: Any, changed: Any = None, multiple: bool = False
) -> ui.select:
    """Draw a list with a search field."""
    made = ui.select(
        options, label=label, value=value, on_change=changed, with_input=True, multiple=multiple
    )
    return made.props("dense options-dense").classes("wide")


def slider(label: str, low: float, high: float, value: float, step: float) -> Any:
    """Draw a slider below its name and value."""
    with ui.column().classes("wide gap-0"):
        said = ui.label().classes("text-sm")
        made = ui.slider(min=low, max=high, value=value, step=step)
        made.props(f"dense aria-label='{label}'")
        said.bind_text_from(made, "value", lambda value: f"{label}: {value:g}")
    return made
