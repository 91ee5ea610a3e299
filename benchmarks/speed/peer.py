"""The baseline: the same networks in PyTorch, as a good user of it would write them.

Functional modules over the same weights, NCHW shapes in channels_last memory, whole batches, no
gradients of weights. PyTorch is optional: `pip install torch`.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F

from jaxsynth.models.caffe_networks import AlexNetConfig, ResNetConfig
from jaxsynth.models.depthwise import same_padding
from jaxsynth.models.generator import GeneratorConfig, Up
from jaxsynth.models.grid_generator import GridGeneratorConfig
from jaxsynth.models.layers import BGR_MEAN, LRN_ALPHA
from jaxsynth.models.network import Config, Network, image_blob, is_generator, logits_blob
from jaxsynth.models.packaged import EfficientNetConfig
from jaxsynth.system import GENERATOR, sees_crop

Weights = dict[str, torch.Tensor]
LAYOUT = torch.channels_last


def torch_step(
    networks: Mapping[str, Network], device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """The step of `benchmarks.speed.cases.Case`: x as there -> values (B,), gradients like x."""
    weights = {role: _weights(n, device, dtype) for role, n in networks.items()}
    first = next(iter(networks.values()))
    alone = len(networks) == 1

    def value(x):
        if alone:
            (role,) = networks
            x = x if is_generator(first.info.config) else _nchw(x)
            out = apply(first.info.config, weights[role], x)
            return out.flatten(1).sum(1) if is_generator(first.info.config) else out[:, 0]
        image = apply(first.info.config, weights[GENERATOR], x)
        total = 0.0
        for role, network in networks.items():
            if role != GENERATOR:
                seen = view(image, network.info.config.size)
                total = total + apply(network.info.config, weights[role], seen)[:, 0]
        return total

    def step(x):
        x = x.detach().requires_grad_(True)
        out = value(x.to(dtype))
        (gradient,) = torch.autograd.grad(out.sum(), x)
        return out.detach(), gradient

    return step


def apply(config: Config, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """A generator's image (B, 3, H, W) of codes (B, D), or the logits (B, C) of images."""
    return _KINDS[type(config)](config, weights, x)


def view(image: torch.Tensor, size: int) -> torch.Tensor:
    """Return a classifier's input of side `size`: a centre crop or a bilinear resize."""
    side = image.shape[-1]
    if sees_crop(side, size):
        start = (side - size) // 2
        return image[..., start : start + size, start : start + size]
    return F.interpolate(
        image, (size, size), mode="bilinear", align_corners=False, antialias=size < side
    )


def _nchw(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2)  # NHWC memory is channels_last already


def _weights(network: Network, device: str, dtype: torch.dtype) -> Weights:
    config, out = network.info.config, {}
    for path, value in network.params.items():
        array = torch.tensor(np.asarray(value, np.float32))
        name = path.removesuffix("/kernel")
        if array.ndim == 4:
            array = array.permute(3, 2, 0, 1)  # HWIO -> OIHW
            if isinstance(config, GeneratorConfig) and _layer(config, name).kind == "deconv":
                array = array.flip(2, 3).transpose(0, 1)
            array = array.contiguous(memory_format=LAYOUT)
        elif array.ndim == 3:  # depthwise: (k, k, C)
            array = array.permute(2, 0, 1)[:, None].contiguous()
        elif array.ndim == 2:
            array = array.T.contiguous()
        out[path] = array.to(device, dtype)
    return out


def _layer(config: GeneratorConfig, name: str) -> Up:
    return next(row for row in config.layers if row.name == name)


def _linear(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, weights[f"{name}/kernel"], weights[f"{name}/bias"])


def _conv(weights: Weights, name: str, x: torch.Tensor, **kwargs) -> torch.Tensor:
    return F.conv2d(x, weights[f"{name}/kernel"], weights[f"{name}/bias"], **kwargs)


def _generator(config: GeneratorConfig, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    for name, _ in config.dense:
        x = F.leaky_relu(_linear(weights, name, x), config.slope)
    height, width, channels = config.seed
    x = x.view(-1, channels, height, width).contiguous(memory_format=LAYOUT)
    for row in config.layers:
        x = _up(row, weights, x)
        if row.name != image_blob(config):
            x = F.leaky_relu(x, config.slope)
    return x


def _up(row: Up, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    if row.kind == "deconv":
        kernel, bias = weights[f"{row.name}/kernel"], weights[f"{row.name}/bias"]
        return F.conv_transpose2d(x, kernel, bias, stride=row.stride, padding=row.pad)
    return _conv(weights, row.name, x, padding=row.pad)


def _alexnet(config: AlexNetConfig, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    for c in config.convs:
        x = F.relu(_conv(weights, c.name, x, stride=c.stride, padding=c.pad, groups=c.groups))
        if c.pool:
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        if c.norm:
            x = _lrn(x)
    x = x.permute(0, 2, 3, 1).flatten(1)
    for name, _ in config.dense:
        x = F.relu(_linear(weights, name, x))
    return _linear(weights, logits_blob(config), x)


def _lrn(x: torch.Tensor) -> torch.Tensor:
    if x.dtype != torch.bfloat16:
        return F.local_response_norm(x, 5, alpha=LRN_ALPHA, beta=0.75, k=1.0)
    squares = F.pad(x * x, (0, 0, 0, 0, 2, 2))  # PyTorch's averages in no bfloat16 on CPU
    total = sum(squares[:, i : i + x.shape[1]] for i in range(5))
    return x / (1.0 + LRN_ALPHA / 5 * total) ** 0.75


def _resnet(config: ResNetConfig, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    x = F.relu(_conv(weights, "conv_1", x, stride=2, padding=3))
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    for s, (blocks, _) in enumerate(config.stages):
        for b in range(blocks):
            stride, name = (2 if s > 0 and b == 0 else 1), f"conv_stage{s}_block{b}"
            shortcut = x
            if b == 0:
                shortcut = _conv(weights, f"{name}_proj_shortcut", x, stride=stride)
            x = F.relu(_conv(weights, f"{name}_branch2a", x, stride=stride))
            x = F.relu(_conv(weights, f"{name}_branch2b", x, padding=1))
            x = F.relu(shortcut + _conv(weights, f"{name}_branch2c", x))
    return _linear(weights, logits_blob(config), x.mean((2, 3)))


def _grid_generator(config: GridGeneratorConfig, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    height, width, channels = config.grid
    x = _linear(weights, "colour", x).view(-1, height, width, channels).permute(0, 3, 1, 2)
    x = F.glu(_conv(weights, "conv_in", x, padding=1), 1)
    x = _gated(weights, f"conv{height}", x)
    side = height
    while side < config.size // 2:
        side *= 2
        x = _gated(weights, f"up{side}", F.interpolate(x, scale_factor=2, mode="nearest"))
        if side <= config.size // 8:
            x = _gated(weights, f"conv{side}", x)
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weights["paint/kernel"])
    x = F.leaky_relu(x + weights["paint_bias"][:, None, None], 0.2)
    rgb = 127.5 + 127.5 * torch.tanh(_pointwise(weights, "rgb", x))
    return rgb.flip(1) - _mean(rgb)


def _gated(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    x = _conv(weights, name, x, padding=1)
    return F.glu(x * torch.rsqrt((x * x).mean(1, keepdim=True) + 1e-5), 1)


def _efficientnet(config: EfficientNetConfig, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    x = ((x + _mean(x)).flip(1) - 127.0) / 128.0
    x = F.relu6(_conv(weights, "conv_stem", _same(x, 3, 2), stride=2))
    blocks = ((stage, i) for stage in config.stages for i in range(stage.blocks))
    for number, (stage, i) in enumerate(blocks):
        name, before, stride = f"block{number}", x, stage.stride if i == 0 else 1
        if stage.expand != 1:
            x = F.relu6(_pointwise(weights, f"{name}_expand", x))
        x = _same(x, stage.kernel, stride)
        x = F.relu6(_conv(weights, f"{name}_depthwise", x, stride=stride, groups=x.shape[1]))
        x = _pointwise(weights, f"{name}_project", x)
        x = x + before if x.shape == before.shape and stride == 1 else x
    x = F.relu6(_pointwise(weights, "conv_head", x))
    return _linear(weights, logits_blob(config), x.mean((2, 3)))


def _pointwise(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, weights[f"{name}/kernel"][:, :, None, None], weights[f"{name}/bias"])


def _same(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    rows, columns = (same_padding(n, kernel, stride) for n in x.shape[-2:])
    return F.pad(x, (*columns, *rows))


def _mean(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(BGR_MEAN, dtype=x.dtype, device=x.device)[:, None, None]


_KINDS = {
    GeneratorConfig: _generator,
    GridGeneratorConfig: _grid_generator,
    AlexNetConfig: _alexnet,
    EfficientNetConfig: _efficientnet,
    ResNetConfig: _resnet,
}
