"""How runs show themselves in a notebook: a picture with captions, hidden until it is clicked."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo

_SIDE = 192  # pixels of a small picture
_STYLE = (
    "<style>.jaxsynth figure{display:inline-block;margin:4px;font:12px sans-serif;"
    "vertical-align:top}.jaxsynth input{display:none}.jaxsynth img{image-rendering:pixelated}"
    ".jaxsynth input+img{filter:blur(16px)}.jaxsynth input:checked+img{filter:none}</style>"
)


def page(figures: Sequence[str], more: int = 0) -> str:
    """Join figures in HTML; `more` are left out."""
    said = f"<p>{more} runs more</p>" if more > 0 else ""
    return f'{_STYLE}<div class="jaxsynth">{"".join(figures)}{said}</div>'


def figure(image: np.ndarray, lines: Sequence[str], hide: bool) -> str:
    """Show an image (H, W, 3) uint8 with captions in HTML; if asked to, blurred until clicked."""
    data = base64.b64encode(png(image)).decode()
    box = "<input type=checkbox>" if hide else ""
    said = "<br>".join(html.escape(line) for line in lines if line)
    shown = f'<img width={max(_SIDE, image.shape[1])} src="data:image/png;base64,{data}">'
    return f"<figure><label>{box}{shown}</label><figcaption>{said}</figcaption></figure>"


def blurred(image: np.ndarray) -> np.ndarray:
    """Hide the details of an image (H, W, 3) uint8."""
    radius = image.shape[0] / 12
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def png(image: np.ndarray, text: str = "") -> bytes:
    """Encode an image (H, W, 3) uint8, with a text named `jaxsynth` if there is any."""
    info, buffer = PngInfo(), io.BytesIO()
    if text:
        info.add_itxt("jaxsynth", text)
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()
