"""What tests compare with: seeded original weights, a caffemodel writer, prototxt for cv2.dnn.

Nothing here uses the product's file code. The recipe of the seeded weights is that of the golden
arrays (generator seed 101, places seed 202): per layer, in network order, float32 normals for the
weights, then for the biases, each scaled.
"""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxsynth.models.caffe_networks import AlexNetConfig, Conv, ResNetConfig
from jaxsynth.models.generator import GeneratorConfig, Up

TINY_GENERATOR = GeneratorConfig(
    code=12,
    dense=(("defc7", 10), ("defc5", 3 * 3 * 8)),
    seed=(3, 3, 8),
    layers=(
        Up("deconv5", "deconv", 6, 4, 2),
        Up("conv5_1", "deconv", 7, 3, 1),
        Up("deconv0", "deconv", 3, 4, 2),
    ),
)
TINY_ALEXNET = AlexNetConfig(
    size=47,
    convs=(
        Conv("conv1", 8, 5, 2, 0, pool="pool1", norm="norm1"),
        Conv("conv2", 12, 3, 1, 1, groups=2, pool="pool2", norm="norm2"),
        Conv("conv5", 6, 3, 1, 1, groups=2, pool="pool5"),
    ),
    dense=(("fc6", 16), ("fc7", 14)),
    classes=9,
)
TINY_RESNET = ResNetConfig(size=50, stem=8, stages=((2, 4), (2, 6)), classes=2)


class Layer(NamedTuple):
    """A layer of an original, blobs in Caffe's layout."""

    name: str
    kind: str
    blobs: list[np.ndarray]


# ---------------------------------------------------------------------------- seeded weights
def generator_layers(config: GeneratorConfig, seed: int) -> list[Layer]:
    rng = np.random.default_rng(seed)
    layers, inputs = [], config.code
    for i, (name, features) in enumerate(config.dense):
        gain = 0.3 if i == 0 else 1.0
        scale = gain * np.sqrt(2.0 / ((1.0 + 0.3**2) * inputs))
        blobs = _draw(rng, (features, inputs), features, scale, 0.03, 0.0)
        layers.append(Layer(name, "InnerProduct", blobs))
        inputs = features
    inputs = config.seed[2]
    for up in config.layers:
        gain, b_std = (45.0, 4.0) if up is config.layers[-1] else (1.0, 0.03)
        fan_in = inputs * up.kernel * up.kernel / up.stride**2
        scale = gain * np.sqrt(2.0 / ((1.0 + 0.3**2) * fan_in))
        shape = (inputs, up.features, up.kernel, up.kernel)
        blobs = _draw(rng, shape, up.features, scale, b_std, 0.0)
        layers.append(Layer(up.name, "Deconvolution", blobs))
        inputs = up.features
    return layers


ALEXNET_SCALES = {  # name: gain, std and mean of the bias
    "conv1": (1.0, 3.0, -3.0),
    "conv2": (1.5, 3.0, -10.0),
    "conv3": (0.03, 0.05, -0.4),
    "conv4": (1.4, 0.05, -0.4),
    "conv5": (1.4, 0.05, -0.4),
    "fc6": (1.2, 0.05, -0.4),
    "fc7": (1.5, 0.05, -0.4),
    "fc8": (1.5, 0.5, 0.0),
}


def alexnet_layers(config: AlexNetConfig, seed: int) -> list[Layer]:
    rng = np.random.default_rng(seed)
    layers, inputs, side = [], 3, config.size
    for c in config.convs:
        shape = (c.features, inputs // c.groups, c.kernel, c.kernel)
        layers.append(Layer(c.name, "Convolution", _alexnet_blobs(rng, c.name, shape)))
        inputs, side = c.features, (side + 2 * c.pad - c.kernel) // c.stride + 1
        side = -(-(side - 3) // 2) + 1 if c.pool else side
    inputs *= side * side
    for name, features in (*config.dense, ("fc8", config.classes)):
        blobs = _alexnet_blobs(rng, name, (features, inputs))
        layers.append(Layer(name, "InnerProduct", blobs))
        inputs = features
    return layers


def resnet_layers(config: ResNetConfig, seed: int) -> list[Layer]:
    """Every convolution with a bias, BatchNorm (factor not 1) and Scale, as Yahoo's file has."""
    rng = np.random.default_rng(seed)
    layers = _conv_norm(rng, "1", (config.stem, 3, 7, 7))
    inputs = config.stem
    for s, (blocks, width) in enumerate(config.stages):
        for b in range(blocks):
            name, out = f"stage{s}_block{b}", 4 * width
            if b == 0:
                layers += _conv_norm(rng, f"{name}_proj_shortcut", (out, inputs, 1, 1))
            layers += _conv_norm(rng, f"{name}_branch2a", (width, inputs, 1, 1))
            layers += _conv_norm(rng, f"{name}_branch2b", (width, width, 3, 3))
            layers += _conv_norm(rng, f"{name}_branch2c", (out, width, 1, 1))
            inputs = out
    blobs = _draw(rng, (config.classes, inputs), config.classes, inputs**-0.5, 0.1, 0.0)
    return [*layers, Layer("fc_nsfw", "InnerProduct", blobs)]


def _draw(rng, shape, outputs, scale, b_std, b_mean) -> list[np.ndarray]:
    w = rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
    b = rng.standard_normal((outputs,), dtype=np.float32)
    return [w, b * np.float32(b_std) + np.float32(b_mean)]


def _alexnet_blobs(rng, name: str, shape: tuple[int, ...]) -> list[np.ndarray]:
    gain, b_std, b_mean = ALEXNET_SCALES[name]
    scale = gain * np.sqrt(2.0 / int(np.prod(shape[1:])))
    return _draw(rng, shape, shape[0], scale, b_std, b_mean)


def _conv_norm(rng, suffix: str, shape: tuple[int, ...]) -> list[Layer]:
    n, factor = shape[0], np.float32(999.98)
    blobs = _draw(rng, shape, n, np.sqrt(2.0 / np.prod(shape[1:])), 0.2, 0.0)
    mean = rng.standard_normal(n, dtype=np.float32) * factor
    variance = rng.uniform(0.5, 2.0, n).astype(np.float32) * factor
    gain, shift = rng.uniform(0.5, 1.5, n), 0.3 * rng.standard_normal(n)
    return [
        Layer(f"conv_{suffix}", "Convolution", blobs),
        Layer(f"bn_{suffix}", "BatchNorm", [mean, variance, np.array([factor])]),
        Layer(f"scale_{suffix}", "Scale", [gain.astype(np.float32), shift.astype(np.float32)]),
    ]


# ---------------------------------------------------------------------------- inputs
def noise_image(seed: int, size: int) -> np.ndarray:
    """(3, size, size) float32 whole numbers in [-120, 135]: white plus low-frequency noise."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((3, size, size))
    low = rng.standard_normal((3, 8, 8))
    r = -(-size // 8)
    low = low.repeat(r, 1).repeat(r, 2)[:, :size, :size]
    image = 50.0 * (white + low) / np.sqrt(2.0)
    return np.rint(np.clip(image, -120, 135)).astype(np.float32)


def hwc(x: np.ndarray) -> np.ndarray:
    """(C, H, W) -> (H, W, C); vectors as they are."""
    return np.moveaxis(x, 0, -1) if x.ndim == 3 else x


def relative_error(got, wanted) -> float:
    """Largest difference over the largest value."""
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def relative_l2(got, wanted) -> float:
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


# ---------------------------------------------------------------------------- caffemodel writer
def write_caffemodel(
    path: str | Path, layers: Sequence[Layer], form: str = "v2", packed: bool = True
) -> Path:
    """Writes a NetParameter by hand. `form`: v2, v1 or v0 (both with 4-D shapes); float64 blobs
    become `double_data`. Layers without blobs (data, ReLU, dropout) may be among them."""
    encode = {"v2": _v2_layer, "v1": _v1_layer, "v0": _v0_layer}[form]
    chunks = [_bytes(1, b"net")]
    for layer in layers:
        chunks.append(encode(layer, [_blob(a, form != "v2", packed) for a in layer.blobs]))
    Path(path).write_bytes(b"".join(chunks))
    return Path(path)


V1_TYPES = {"InnerProduct": 14, "Convolution": 4, "Deconvolution": 39, "Dropout": 6}
V0_TYPES = {"InnerProduct": "innerproduct", "Convolution": "conv", "Dropout": "dropout"}


def _v2_layer(layer: Layer, blobs: list[bytes]) -> bytes:
    parts = [_bytes(1, layer.name.encode()), _bytes(2, layer.kind.encode())]
    return _bytes(100, b"".join(parts + [_bytes(7, b) for b in blobs]))


def _v1_layer(layer: Layer, blobs: list[bytes]) -> bytes:
    parts = [_bytes(4, layer.name.encode()), _int(5, V1_TYPES.get(layer.kind, 0))]
    return _bytes(2, b"".join(parts + [_bytes(6, b) for b in blobs]))


def _v0_layer(layer: Layer, blobs: list[bytes]) -> bytes:
    kind = V0_TYPES.get(layer.kind, layer.kind.lower())
    parts = [_bytes(1, layer.name.encode()), _bytes(2, kind.encode())]
    return _bytes(2, _bytes(1, b"".join(parts + [_bytes(50, b) for b in blobs])))


def _blob(array: np.ndarray, legacy: bool, packed: bool) -> bytes:
    if legacy:
        dims = (1,) * (4 - array.ndim) + array.shape
        head = b"".join(_int(i + 1, d) for i, d in enumerate(dims))
    else:
        head = _bytes(7, _bytes(1, b"".join(_varint(d) for d in array.shape)))
    number, wire, kind = (8, 1, "<f8") if array.dtype == np.float64 else (5, 5, "<f4")
    if packed:
        return head + _bytes(number, np.ascontiguousarray(array, kind).tobytes())
    tag = _varint(number << 3 | wire)
    return head + b"".join(tag + struct.pack(kind.replace("f4", "f").replace("f8", "d"), v)
                           for v in array.ravel())  # fmt: skip


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _int(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


# ---------------------------------------------------------------------------- prototxt
class Prototxt(NamedTuple):
    """A network definition, and for every blob the layer that writes it last (ReLUs in place)."""

    text: str
    last: dict[str, str]


def generator_prototxt(config: GeneratorConfig) -> Prototxt:
    write, done = _writer("feat", (config.code, 1, 1))
    bottom = "feat"
    for name, features in config.dense:
        bottom = write(
            name, "InnerProduct", bottom, f"inner_product_param {{num_output: {features}}}"
        )
        write(f"{name}_relu", "ReLU", name, "relu_param {negative_slope: 0.3}", top=name)
    h, w, c = config.seed
    shape = f"reshape_param {{shape {{dim: 0 dim: {c} dim: {h} dim: {w}}}}}"
    bottom = write(f"reshape_{bottom}", "Reshape", bottom, shape)
    for up in config.layers:
        param = _conv_param(up.features, up.kernel, up.stride, up.pad)
        bottom = write(up.name, "Deconvolution", bottom, param)
        if up is not config.layers[-1]:
            write(f"{up.name}_relu", "ReLU", up.name, "relu_param {negative_slope: 0.3}", up.name)
    return done()


def alexnet_prototxt(config: AlexNetConfig) -> Prototxt:
    write, done = _writer("data", (3, config.size, config.size))
    bottom = "data"
    for c in config.convs:
        param = _conv_param(c.features, c.kernel, c.stride, c.pad, c.groups)
        bottom = write(c.name, "Convolution", bottom, param)
        write(f"{c.name}_relu", "ReLU", c.name, top=c.name)
        if c.pool:
            bottom = write(
                c.pool, "Pooling", bottom, "pooling_param {pool: MAX kernel_size: 3 stride: 2}"
            )
        if c.norm:
            bottom = write(
                c.norm, "LRN", bottom, "lrn_param {local_size: 5 alpha: 0.0001 beta: 0.75}"
            )
    for name, features in config.dense:
        bottom = write(
            name, "InnerProduct", bottom, f"inner_product_param {{num_output: {features}}}"
        )
        write(f"{name}_relu", "ReLU", name, top=name)
    bottom = write(
        "fc8", "InnerProduct", bottom, f"inner_product_param {{num_output: {config.classes}}}"
    )
    write("prob", "Softmax", bottom)
    return done()


def resnet_prototxt(config: ResNetConfig) -> Prototxt:
    write, done = _writer("data", (3, config.size, config.size))

    def conv(suffix: str, bottom: str, features: int, kernel: int, stride: int, relu: bool) -> str:
        name = f"conv_{suffix}"
        write(name, "Convolution", bottom, _conv_param(features, kernel, stride, kernel // 2))
        write(f"bn_{suffix}", "BatchNorm", name, "batch_norm_param {use_global_stats: true}", name)
        write(f"scale_{suffix}", "Scale", name, "scale_param {bias_term: true}", name)
        return write(f"relu_{suffix}", "ReLU", name, top=name) if relu else name

    bottom = conv("1", "data", config.stem, 7, 2, relu=True)
    pool = "pooling_param {pool: MAX kernel_size: 3 stride: 2}"
    bottom = write("pool1", "Pooling", bottom, pool)
    for s, (blocks, width) in enumerate(config.stages):
        for b in range(blocks):
            name, stride = f"stage{s}_block{b}", 2 if s > 0 and b == 0 else 1
            skip = bottom
            if b == 0:
                skip = conv(f"{name}_proj_shortcut", bottom, 4 * width, 1, stride, relu=False)
            x = conv(f"{name}_branch2a", bottom, width, 1, stride, relu=True)
            x = conv(f"{name}_branch2b", x, width, 3, 1, relu=True)
            x = conv(f"{name}_branch2c", x, 4 * width, 1, 1, relu=False)
            bottom = write(f"eltwise_{name}", "Eltwise", [skip, x])
            write(f"relu_{name}", "ReLU", bottom, top=bottom)
    bottom = write("pool", "Pooling", bottom, "pooling_param {pool: AVE global_pooling: true}")
    bottom = write(
        "fc_nsfw", "InnerProduct", bottom, f"inner_product_param {{num_output: {config.classes}}}"
    )
    write("prob", "Softmax", bottom)
    return done()


def _writer(name: str, shape: tuple[int, ...]) -> tuple[Callable[..., str], Callable[[], Prototxt]]:
    dims = " ".join(f"input_dim: {d}" for d in (1, *shape))
    lines, last = [f'input: "{name}" {dims}'], {}

    def write(name, kind, bottoms, param="", top=None) -> str:
        bottoms = [bottoms] if isinstance(bottoms, str) else bottoms
        inputs = " ".join(f'bottom: "{b}"' for b in bottoms)
        top = top or name
        lines.append(f'layer {{name: "{name}" type: "{kind}" {inputs} top: "{top}" {param}}}')
        last[top] = name
        return top

    return write, lambda: Prototxt("\n".join(lines), last)


def _conv_param(features: int, kernel: int, stride: int, pad: int, groups: int = 1) -> str:
    return (
        f"convolution_param {{num_output: {features} kernel_size: {kernel} stride: {stride} "
        f"pad: {pad} group: {groups}}}"
    )


def cv2_blobs(prototxt: Prototxt, caffemodel: str | Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every blob by OpenCV's own Caffe importer, (H, W, C) or (N,); x is (C, H, W) or (D,)."""
    import cv2

    definition = np.frombuffer(prototxt.text.encode(), np.uint8)
    net = cv2.dnn.readNetFromCaffe(definition, np.fromfile(caffemodel, np.uint8))
    net.enableFusion(False)
    x = x.reshape(1, -1, 1, 1) if x.ndim == 1 else x[None]
    net.setInput(np.ascontiguousarray(x, np.float32))
    names = list(prototxt.last)
    outs = net.forward([prototxt.last[name] for name in names])
    return {name: hwc(out[0]) for name, out in zip(names, outs, strict=True)}
