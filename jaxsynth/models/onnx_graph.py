"""An ONNX graph as a pure function of its parameters and one image.

The graph is interpreted whenever JAX traces it: numpy computes what depends on no pixel, so chains
of shapes are gone from the program. What an initialiser's operators make of it alone is computed
once, when the file is loaded.
"""

import graphlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.inputs import near
from jaxsynth.models import onnx_math, onnx_nn, onnx_pool, onnx_products, onnx_resize, onnx_shapes
from jaxsynth.models.cpu_convolution import network_jit
from jaxsynth.models.derived import DERIVED
from jaxsynth.models.onnx_call import MOST_NUMBERS, OPERATORS, Call, is_float
from jaxsynth.models.onnx_file import OnnxFile, OnnxNode, Subgraph
from jaxsynth.models.onnx_layout import (
    Laid,
    Value,
    as_graph,
    channels_last,
    laid,
    ordered,
    shape_of,
)

# Imported so that OPERATORS is full.
_TABLES = (onnx_math, onnx_nn, onnx_pool, onnx_products, onnx_resize, onnx_shapes)
_STATIC = {"Resize": (1, 2, 3), "Upsample": (1,), "Pad": (2,), "Clip": (1, 2)}  # float inputs
_IN_PLACE = ("Concat", "Split", "Pad", "Slice", "Clip", "Cast", "Identity", "Dropout")
_LOOPS = ("If", "Loop", "Scan", "SequenceMap")
OPSETS = (7, 25)

Params = dict[str, jax.Array]


class Wiring(NamedTuple):
    """What is known of a graph before any image.

    Attributes:
      nodes: In an order in which they can be computed.
      known: Numpy arrays that are no parameters: integers, single numbers, sizes.
      arrays: The parameters.
      images: Names of the tensors that are (N, C, H, W).
    """

    nodes: tuple[OnnxNode, ...]
    known: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
    images: frozenset[str]


def wire(file: OnnxFile, outputs: Iterable[str]) -> Wiring:
    """Sort a graph, compute what its initialisers alone decide, drop what no output needs.

    Raises:
      ValueError: Naming the node, if the graph cannot be computed.
    """
    if not OPSETS[0] <= file.opset <= OPSETS[1]:
        raise ValueError(
            f"{file.path} has opset {file.opset}, expected {OPSETS[0]} to {OPSETS[1]}: convert it "
            "with onnx.version_converter"
        )
    nodes, arrays, left = _sorted(file, outputs), dict(file.arrays), []
    for node in nodes:
        _check(file, node)
        if OPERATORS[node.op].folds and all(n in arrays for n in node.inputs if n):
            values = [arrays[n] if n else None for n in node.inputs]
            with np.errstate(all="ignore"):
                made = _compute(file, node, Call(node, file.opset, values, np.float32))
            arrays |= {n: a for n, a in zip(node.outputs, made, strict=False) if n}
        else:
            left.append(node)
    used = {n for node in left for n in node.inputs} | set(outputs)
    static = {n for node in left for i in _STATIC.get(node.op, ()) for n in node.inputs[i : i + 1]}
    arrays = {n: a for n, a in arrays.items() if n in used}
    params = {n: a for n, a in arrays.items() if is_float(a) and a.size > 1 and n not in static}
    known = {n: a for n, a in arrays.items() if n not in params}
    return Wiring(tuple(left), known, params, _image_tensors(left, arrays))


class OnnxGraph:
    """`graph(params, x)` gives {blob: array} of an image (H, W, 3); equal only to itself.

    Attributes:
      file: The file.
      wiring: What is computed.
      input: Name of its input.
      batch: How many images the file takes at once.
      first: Whether channels come first, (N, C, H, W).
      names: Tensor -> blob.
      side: Height and width of the image.
      logits: Tensor of the logits.
      flat: Name of the blob that they are.
    """

    def __init__(self, file: OnnxFile, wiring: Wiring, name: str, batch: int, first: bool):
        """Take the parts; blobs get their names from the tensors."""
        self.file, self.wiring, self.input = file, wiring, name
        self.batch, self.first, self.side = batch, first, (0, 0)
        self.names = _blob_names([name, *(n for node in wiring.nodes for n in node.outputs if n)])
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
    """Compute every tensor of a graph.

    Args:
      file: The file.
      wiring: What `wire` made of it.
      params: The initialisers by name, perhaps with what is derived from them.
      inputs: By name; they get the parameters' precision, which is that of the arithmetic.
      store: Gets the arrays that are derived from parameters.

    Raises:
      ValueError: Naming the node that cannot be computed.
    """
    floats = [v.array.dtype for v in inputs.values() if is_float(v.array)]
    dtype = next((p.dtype for p in params.values()), floats[0] if floats else jnp.float32)
    env: dict[str, Value] = dict(wiring.known)
    env |= {name: laid(params[name]) for name in wiring.arrays}
    for name, value in inputs.items():
        cast = value.array.astype(dtype) if is_float(value.array) else value.array
        env[name] = value._replace(array=cast)
    fixed = frozenset((*wiring.arrays, *wiring.known))
    for node in wiring.nodes:

        def derive(name, make, node=node):
            key = f"{DERIVED}/{node.outputs[0]}/{name}"
            if store is not None and key not in store:
                store[key] = make()
            return params.get(key) if store is None else store[key]

        values = [env[n] if n else None for n in node.inputs]
        call = Call(node, file.opset, values, dtype, fixed, derive)
        made = _compute(file, node, call)
        env |= {n: v for n, v in zip(node.outputs, made, strict=False) if n}
    return env


def _compute(file: OnnxFile, node: OnnxNode, call: Call) -> tuple[Value, ...]:
    """Compute a node; what goes wrong is one line that names it."""
    try:
        made = call.compute()
    except Exception as error:  # a damaged node can make jax or numpy raise anything
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _error(file, node, f"cannot be computed: {why:.300}") from error
    for value in made:
        if np.prod(shape_of(value), dtype=float) > MOST_NUMBERS:
            raise _error(file, node, f"makes a tensor of shape {shape_of(value)}: too large")
    return made


def _check(file: OnnxFile, node: OnnxNode) -> None:
    if node.op in _LOOPS or any(isinstance(a, Subgraph) for a in node.attributes.values()):
        raise _error(
            file,
            node,
            "is control flow, which has no gradient here: export with fixed sizes in evaluation "
            "mode, or simplify the file (onnxsim)",
        )
    if node.op not in OPERATORS or node.domain:
        where = f" of {node.domain}" if node.domain else ""
        hint = "" if node.domain else near(node.op, OPERATORS)
        raise _error(
            file,
            node,
            f"{where} is not known{hint}: export with another opset, in evaluation mode, without "
            "quantised or fused operators, or cut the graph before it (onnx.utils.extract_model)",
        )


def _error(file: OnnxFile, node: OnnxNode, what: str) -> ValueError:
    name = node.name or next(iter(node.outputs), "")
    space = "" if what.startswith(" ") else " "
    where = f"{file.path}: operator {node.op} (node {name!r}, opset {file.opset})"
    return ValueError(f"{where}{space}{what}")


def _sorted(file: OnnxFile, outputs: Iterable[str]) -> list[OnnxNode]:
    """Sort the nodes that outputs need by their data flow.

    Raises:
      ValueError: For a circle, a tensor that nothing makes, or two nodes that make one.
    """
    makers: dict[str, OnnxNode] = {}
    for node in file.nodes:
        for name in filter(None, node.outputs):
            if name in makers or name in file.arrays or name in file.inputs:
                raise _error(file, node, f"makes {name!r}, which is there already")
            makers[name] = node
    known = {*file.arrays, *file.inputs}
    needed: dict[str, OnnxNode] = {}
    open_names = list(outputs)
    while open_names:
        name = open_names.pop()
        if name in known or name in needed:
            continue
        if name not in makers:
            hint = near(name, makers)
            raise ValueError(f"{file.path}: no node makes the tensor {name!r}{hint}")
        node = makers[name]
        needed |= dict.fromkeys(filter(None, node.outputs), node)
        open_names += filter(None, node.inputs)
    place = {id(node): i for i, node in enumerate(file.nodes)}
    before = {
        place[id(node)]: {place[id(needed[n])] for n in node.inputs if n in needed}
        for node in needed.values()
    }
    sorter = graphlib.TopologicalSorter(before)
    try:
        return [file.nodes[i] for i in _in_file_order(sorter)]
    except graphlib.CycleError as error:
        node = file.nodes[error.args[1][0]]
        raise _error(file, node, "takes part in a circle of nodes") from None


def _in_file_order(sorter: graphlib.TopologicalSorter) -> Iterator[int]:
    sorter.prepare()
    while sorter:
        ready = sorted(sorter.get_ready())
        sorter.done(*ready)
        yield from ready


def _image_tensors(nodes: Iterable[OnnxNode], arrays: Any) -> frozenset[str]:
    """Find the tensors whose axes are (N, C, H, W): those of image operators, and their like."""
    group: dict[str, str] = {}

    def root(name: str) -> str:
        while group.setdefault(name, name) != name:
            group[name] = group[group[name]]
            name = group[name]
        return name

    images = set()
    for node in nodes:
        known = OPERATORS[node.op]
        if known.image:
            images |= {*node.inputs[:1], *node.outputs[:1]}
        if known.pointwise or node.op in _IN_PLACE or node.op.startswith("Reduce"):
            alike = [n for n in (*node.inputs, *node.outputs) if n and n not in arrays]
            for name in alike[1:]:
                group[root(name)] = root(alike[0])
    roots = {root(n) for n in images}
    return frozenset(n for n in (*group, *images) if root(n) in roots)


def _blob_names(tensors: Iterable[str]) -> dict[str, str]:
    """Name blobs by tensors: without TensorFlow's `:0`, as `:` separates the parts of a term."""
    names: dict[str, str] = {}
    taken = {"prob", "log_prob", "log_odds"}
    for tensor in tensors:
        blob = "".join(c if c.isprintable() else "_" for c in tensor.removesuffix(":0"))
        blob = blob.replace(":", "_")
        while blob in taken:
            blob += "_"
        names[tensor] = blob
        taken.add(blob)
    return names
