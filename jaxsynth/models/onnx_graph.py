"""An ONNX graph as a pure function of its parameters and one image.

The graph is interpreted whenever JAX traces it: numpy computes what depends on no pixel, so chains
of shapes are gone from the program. What an initialiser's operators make of it alone is computed
once, when the file is loaded.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.inputs import near
from jaxsynth.models.compiled import DERIVED, network_jit
from jaxsynth.models.onnx_call import (
    Call,
    Laid,
    Value,
    as_graph,
    channels_last,
    is_float,
    laid,
    ordered,
    shape_of,
)
from jaxsynth.models.onnx_file import OnnxFile, OnnxNode
from jaxsynth.models.onnx_wiring import Wiring, check_inputs, compute

_ENDS = ("Softmax", "LogSoftmax", "Sigmoid", "Hardmax", "ArgMax", "TopK")  # logits come before
_PLAIN = ("Identity", "Cast", "Flatten", "Squeeze", "Reshape", "Unsqueeze", "Dropout")
_PLAIN += ("QuantizeLinear", "DequantizeLinear")
Params = dict[str, jax.Array]


class OnnxGraph:
    """`graph(params, x)` gives {blob: array} of an image (H, W, 3); equal only to itself.

    Attributes:
      file: The file, without nodes and arrays.
      wiring: What is computed.
      input: Name of its input.
      batch: How many images the file takes at once.
      first: Whether channels come first, (N, C, H, W).
      names: Tensor -> blob.
      relus: Output of a ReLU -> its input, which is the blob BLOB_pre.
      side: Height and width of the image.
      logits: Tensor of the logits.
      flat: Name of the blob that they are.
    """

    def __init__(self, file: OnnxFile, wiring: Wiring, name: str, batch: int, first: bool):
        """Take the parts; blobs get their names from the tensors."""
        self.file, self.wiring, self.input = file._replace(nodes=[], arrays={}), wiring, name
        self.batch, self.first, self.side = batch, first, (0, 0)
        self.names = _blob_names([name, *(n for node in wiring.nodes for n in node.outputs if n)])
        self.relus = {n.outputs[0]: n.inputs[0] for n in wiring.nodes if _is_relu(n, wiring)}
        self.logits, self.flat = "", ""
        self.__name__ = file.path.name

    def __call__(self, params: Params, x: jax.Array) -> dict[str, jax.Array]:
        """Compute every blob: channels last, without the batch's axis."""
        return self._blobs(self.tensors(params, x))

    def prepare(self, params: Params) -> Params:
        """Add what steps derive from parameters alone, `derived/...`; gradients are of x only."""
        if any(name.startswith(f"{DERIVED}/") for name in params):
            return params
        shape = (*self.side, 3)

        def derive(params: Params) -> Params:
            made: Params = {}
            self.tensors(params, jnp.zeros(shape), made)
            return made

        return params | network_jit(derive)(params)

    def tensors(
        self, params: Params, x: jax.Array, store: Params | None = None
    ) -> dict[str, Value]:
        """Compute every tensor of the graph; arguments as of `evaluate`, x of one image."""
        x = jnp.broadcast_to(x, (self.batch, *x.shape))
        given = Laid(x, channels_last(4)) if self.first else laid(x)
        return evaluate(self.file, self.wiring, params, {self.input: given}, store)

    def _blobs(self, env: dict[str, Value]) -> dict[str, jax.Array]:
        out = {}
        for tensor, blob in self.names.items():
            value = env.get(tensor)
            if not isinstance(value, Laid) or not is_float(value.array) or not value.order:
                continue
            image = len(value.order) == 4 and tensor in self.wiring.images
            array = ordered(value, channels_last(4)) if image else as_graph(value)
            if (before := self.names.get(self.relus.get(tensor, ""))) in out:
                out.setdefault(f"{blob}_pre", out[before])
            out[blob] = array[0] if array.shape[0] in (1, self.batch) and array.ndim > 1 else array
        if self.flat:
            out[self.flat] = as_graph(env[self.logits])[:1].ravel()
        return out


def evaluate(
    file: OnnxFile,
    wiring: Wiring,
    params: Params,
    inputs: dict[str, Laid],
    store: Params | None = None,
) -> dict[str, Value]:
    """Compute every tensor of a graph; ValueErrors name the node that cannot be computed.

    `inputs` get the precision of `params`, the initialisers, and the arrays derived from them.
    `store` gets the arrays that are derived from parameters.
    """
    floats = [v.array.dtype for v in inputs.values() if is_float(v.array)]
    dtype = next((p.dtype for p in params.values()), floats[0] if floats else jnp.float32)
    env: dict[str, Value] = dict(wiring.known)
    env |= {name: laid(params[name]) for name in wiring.params}
    for name, value in inputs.items():
        cast = value.array.astype(dtype) if is_float(value.array) else value.array
        env[name] = value._replace(array=cast)
    fixed = frozenset((*wiring.params, *wiring.known))
    for node in wiring.nodes:

        def derive(name, make, node=node):
            key = f"{DERIVED}/{node.outputs[0]}/{name}"
            if store is not None and key not in store:
                store[key] = make()
            return params.get(key) if store is None else store[key]

        values = [env[n] if n else None for n in check_inputs(file, node, env)]
        call = Call(node, file.opset, values, dtype, fixed, derive)
        made = compute(file, node, call)
        env |= {n: v for n, v in zip(node.outputs, made, strict=False) if n}
    return env


def _is_relu(node: OnnxNode, wiring: Wiring) -> bool:
    """Return whether a node is a ReLU, or a ReLU6 as exporters write it."""
    if node.op != "Clip":
        return node.op == "Relu"
    low = wiring.known.get(node.inputs[1]) if node.inputs[1:] else node.attributes.get("min")
    return low is not None and low == 0


def _blob_names(tensors: Iterable[str]) -> dict[str, str]:
    """Name blobs by tensors: without TensorFlow's `:0`, as `:` separates the parts of a term."""
    names: dict[str, str] = {}
    taken = {"prob", "log_prob", "log_odds"}
    for tensor in tensors:
        blob = "".join(c if c.isprintable() else "_" for c in tensor.removesuffix(":0"))
        blob = blob.replace(":", "_")
        names[tensor] = _free(blob, taken)
        taken.add(names[tensor])
    return names


# --- the logits -----------------------------------------------------------------------------------


def find_logits(graph: OnnxGraph, params: Any, asked: str) -> str:
    """Trace the graph once; return the blob of the logits, which `asked` may name."""
    file, shapes = graph.file, {}

    def trace(params, x):
        env = graph.tensors(params, x)
        shapes.update(
            {n: shape_of(v) for n, v in env.items() if isinstance(v, Laid) and is_float(v.array)}
        )
        return ()

    jax.eval_shape(trace, params, jax.ShapeDtypeStruct((*graph.side, 3), jnp.float32))
    tensors = {blob: tensor for tensor, blob in graph.names.items()}
    if asked and tensors.get(asked, asked) not in shapes:
        known = [blob for blob, tensor in tensors.items() if tensor in shapes]
        raise ValueError(f"{file.path}: no blob {asked!r} for the logits{near(asked, known)}")
    makers = {n: node for node in graph.wiring.nodes for n in node.outputs}
    starts = [tensors.get(asked, asked)] if asked else [_before(o, makers) for o in file.outputs]
    for tensor in starts:
        shape = shapes.get(tensor, ())
        classes = max(shape, default=0)
        if classes > 1 and np.prod(shape) in (classes, classes * graph.batch):
            graph.logits, graph.flat = tensor, _free("logits", tensors)
            return graph.flat
    found = ", ".join(f"{o} {shapes.get(o, '')}" for o in file.outputs)
    raise ValueError(
        f"{file.path}: no output is a vector of class scores ({found}): name the blob with "
        "logits=BLOB"
    )


def _before(tensor: str, makers: dict[str, OnnxNode]) -> str:
    """Go back from an output over a final softmax to the logits, if there is one."""
    name = tensor
    for _ in range(8):
        node = makers.get(name)
        if node is None or node.op not in (*_ENDS, *_PLAIN):
            return tensor
        if node.op in _ENDS:
            return _before(node.inputs[0], makers)
        name = node.inputs[0]
    return tensor


def _free(name: str, taken: Any) -> str:
    while name in taken:
        name += "_"
    return name
