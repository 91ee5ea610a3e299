"""The models that everything else works on: `Classifier` and `Generator`.

A model is a pure function of its parameters and one example, and a few facts about it. Nothing here
knows an architecture; `jaxsynth.models.registry` makes models from weights files.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxsynth.images import CAFFE, UNIT_RGB, Preprocess, resize_to
from jaxsynth.inputs import described, near
from jaxsynth.models import functions
from jaxsynth.models.functions import UNKNOWN, Activations, Apply, Code, Info, Params, Shapes
from jaxsynth.models.labels import check_labels, check_sensitive, unique_labels
from jaxsynth.objectives import Targets


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier(Targets):
    """A classifier; two are the same only if they are one object.

    Attributes:
      apply: (params, one image (H, W, 3) in its units) -> {blob: array}, or the logits alone. A
        pure JAX function; channels are an array's last axis.
      params: Any pytree of arrays.
      size: Side of its square input in pixels.
      labels: One name per class; alike ones are told apart, as in `crane (134)`.
      preprocess: Units of its input.
      logits: Blob of the logits. By default it is found: the only array, else `logits`, else the
        last vector as long as `labels`, else the last vector. None says that there is none (an
        encoder).
      name: Its name in terms, files and tables.
      sensitive: The class, or classes, whose probability above 0.5 blurs a picture.
      info: Where it comes from.
      prepare: Params -> params, derived once for many steps.
    """

    apply: Apply
    params: Params
    size: int
    labels: tuple[str, ...] = ()
    preprocess: Preprocess = UNIT_RGB
    logits: str | None = ""
    name: str = "classifier"
    sensitive: int | tuple[int, ...] | None = None
    info: Info = UNKNOWN
    prepare: Callable[[Params], Params] | None = None

    def __post_init__(self):
        """Check every field, by ValueErrors; find the logits where they are not named."""
        functions.check_model_name(self.name)
        what = f"classifier {self.name!r}"
        functions.check_given(self, what, "size")
        check_labels(what, self.labels)
        object.__setattr__(self, "labels", unique_labels(self.labels))
        if self.logits == "":
            object.__setattr__(self, "logits", self._find_logits())
        if self.info == UNKNOWN:  # of a file's configuration they are known without it
            _ = self.shapes  # checks logits and labels
        if self.sensitive is not None:
            check_sensitive(what, self.sensitive, self.labels, len(self.labels) or self.classes)

    def __repr__(self) -> str:
        """Say what it is, without its weights."""
        return f"Classifier({self.name!r}, {self.size} x {self.size}, {self.classes} classes)"

    @property
    def role(self) -> str:
        """Its name in terms."""
        return self.name

    @property
    def activations(self) -> Activations:
        """Its function in standard form."""
        return Activations(self.apply, "logits", self.logits)

    @functools.cached_property
    def shapes(self) -> Shapes:
        """Blob -> shape, nothing computed.

        Raises:
          ValueError: If labels and logits do not go together.
        """
        shapes = functions.find_shapes(self, (self.size, self.size, 3))
        if self.logits is not None:
            functions.check_logits(self, shapes)
        return shapes

    @property
    def classes(self) -> int:
        """How many classes it tells apart, 0 for none."""
        return self.shapes[self.logits][0] if self.logits else 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """Its labels, or numbers where it has none."""
        return self.labels or tuple(map(str, range(self.classes)))

    @property
    def sensitive_name(self) -> str:
        """The names of its sensitive classes, `Hentai + Porn + Sexy`; empty without."""
        return " + ".join(self.class_names[i] for i in self.sensitive_classes)

    def sensitive_probability(self, p: np.ndarray) -> np.ndarray:
        """Sum the probabilities of its sensitive classes: (..., N) -> (...,)."""
        return p[..., list(self.sensitive_classes)].sum(-1)

    @property
    def sensitive_classes(self) -> tuple[int, ...]:
        """The numbers of its sensitive classes."""
        if self.sensitive is None:
            return ()
        return self.sensitive if isinstance(self.sensitive, tuple) else (self.sensitive,)

    def named(self, name: str) -> "Classifier":
        """Return the same classifier under another name."""
        return _renamed(self, name)

    def unit_of(self, label: str | int) -> int:
        """Return the index of a class by its label or number.

        Raises:
          ValueError: If it has no such class, with the nearest labels.
        """
        if isinstance(label, str):
            if label in self.labels:
                return self.labels.index(label)
            if not label.isdecimal():
                hint = near(label, self.class_names)
                raise ValueError(f"{self.name} has no class {label!r}{hint}")
        if not 0 <= (unit := int(label)) < self.classes:
            raise ValueError(
                f"{self.name} has no class {label}: expected a label or 0 to {self.classes - 1}"
            )
        return unit

    def input_of(self, rgb: np.ndarray) -> np.ndarray:
        """Turn a picture (H, W, 3) uint8 RGB of any size into its input, (size, size, 3) float32.

        Raises:
          ValueError: If its `preprocess.resize` gives another size.
        """
        return self.preprocess.to_input(resize_to(rgb, self.preprocess.resize, self.size))

    def _find_logits(self) -> str:
        shapes = functions.find_shapes(self, (self.size, self.size, 3))
        vectors = [blob for blob, shape in shapes.items() if len(shape) == 1]
        fitting = [blob for blob in vectors if shapes[blob] == (len(self.labels),)]
        if not vectors:
            some = list(shapes.items())[: functions.FEW]
            given = ", ".join(f"{blob} {shape}" for blob, shape in some)
            raise ValueError(
                f"classifier {self.name!r} has no blob that is a vector of logits: it gives "
                f"{given}; {functions.ONE_A_CLASS}, or say logits=None"
            )
        return "logits" if "logits" in vectors else (fitting or vectors)[-1]


@dataclasses.dataclass(frozen=True, eq=False)
class Generator(Targets):
    """A generator (prior); two are the same only if they are one object.

    Attributes:
      apply: (params, one code (D,)) -> {blob: array}, or the image (H, H, 3) alone, in its units. A
        pure JAX function.
      params: Any pytree of arrays.
      code_size: D.
      box: Bounds of every unit; `code` has them unit by unit.
      start: A name in `recipes.STARTS`; empty for the recipe's.
      image: Blob of the image.
      preprocess: Units of its pixels. Unlike a classifier's they are by default Caffe's (BGR of
        0..255 less a mean): give `Preprocess()` where it paints RGB of 0..1.
      name: Its name in messages.
      code: Code box and latent statistics.
      recipe: Name of the recipe that suits it.
      recipe_from_image: Name of the recipe that suits it from a photograph.
      encoder: The classifier whose blob `encoder_blob` is the code, or a function that loads it.
      encoder_blob: That blob.
      info: Where it comes from.
      prepare: Params -> params, derived once for many steps.
    """

    apply: Apply
    params: Params
    code_size: int
    box: tuple[float, float] | None = None
    start: str = ""
    image: str = "image"
    preprocess: Preprocess = CAFFE
    name: str = "generator"
    code: Code | None = None
    recipe: str = "goh"
    recipe_from_image: str = "dgn_am_image"
    encoder: Classifier | Callable[[], Classifier] | None = None
    encoder_blob: str = "fc6"
    info: Info = UNKNOWN
    prepare: Callable[[Params], Params] | None = None

    def __post_init__(self):
        """Check every field, by ValueErrors; make a code box of plain bounds."""
        functions.check_given(self, f"generator {self.name!r}", "code_size")
        if self.code is None and self.box is not None:
            low, high = map(float, self.box)
            if not low < high:
                raise ValueError(f"generator {self.name!r}: box is {self.box!r}, not (low, high)")
            bounds = Code(np.full(self.code_size, high), lower=np.full(self.code_size, low))
            object.__setattr__(self, "code", bounds)
        for field, array in (self.code._asdict() if self.code else {}).items():
            if array is not None and np.shape(array)[:1] != (self.code_size,):
                raise ValueError(
                    f"generator {self.name!r}: {field} of its code has shape {np.shape(array)}, "
                    f"expected {(self.code_size,)}"
                )
        if self.info == UNKNOWN:
            _ = self.shapes  # checks the image

    def __repr__(self) -> str:
        """Say what it is, without its weights."""
        return f"Generator({self.name!r}, code of {self.code_size})"

    role = "generator"

    @property
    def activations(self) -> Activations:
        """Its function in standard form."""
        return Activations(self.apply, self.image)

    @functools.cached_property
    def shapes(self) -> Shapes:
        """Blob -> shape, nothing computed.

        Raises:
          ValueError: If none of them is a square image.
        """
        shapes = functions.find_shapes(self, (self.code_size,))
        if self.image not in shapes:
            hint = near(self.image, shapes)
            raise ValueError(f"generator {self.name!r} has no blob {self.image!r}{hint}")
        shape = shapes[self.image]
        if len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3:
            raise ValueError(
                f"generator {self.name!r}: its {self.image!r} has shape {shape}, expected (H, H, 3)"
            )
        return shapes

    @property
    def image_size(self) -> int:
        """Side of its images in pixels."""
        return self.shapes[self.image][0]

    def named(self, name: str) -> "Generator":
        """Return the same generator under another name."""
        return _renamed(self, name)

    def load_encoder(self) -> Classifier | None:
        """Return its encoder, loaded now if need be; None if it names none."""
        return self.encoder() if callable(self.encoder) else self.encoder


def check_classifiers(caller: str, given: Any) -> tuple[Classifier, ...]:
    """Return classifiers as a tuple, a lone one as well; ValueError if one is no Classifier."""
    found = tuple(given) if isinstance(given, list | tuple) else (given,)
    if wrong := [one for one in found if not isinstance(one, Classifier)]:
        raise ValueError(
            f"{caller}: {described(wrong[0])} is no Classifier: expected a list of them"
        )
    return found


def _renamed(model, name: str):
    functions.check_model_name(name)
    renamed = copy.copy(model)  # with its shapes, which take a moment to find
    object.__setattr__(renamed, "name", name)
    return renamed
