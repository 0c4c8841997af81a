"""Pictures of the worst samples, where an input looks like images."""

import base64
import io
from typing import TYPE_CHECKING, Any

from trainyard.tasks.validation.report import ValidationReport
from trainyard.tasks.validation.samples import Samples

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_MOST_PICTURES = 12
_MOST_PIXELS = 256
_LEAST_PIXELS = 6


def pictures_of(samples: Samples, report: ValidationReport) -> dict[int, str]:
    """PNG as a data URI, by the sample's index; none where no input is [samples, 1 or 3, height, width]."""
    images = next((array for array in samples.inputs.values() if _are_images(array)), None)
    if images is None:
        return {}
    wanted = dict.fromkeys(worst.index for entry in report.parity for worst in entry.worst)
    positions = {int(index): position for position, index in enumerate(samples.indices)}
    return {index: _picture(images[positions[index]]) for index in list(wanted)[:_MOST_PICTURES]}


def _are_images(array: "Array") -> bool:
    if array.ndim != 4 or array.dtype.kind not in "fu":
        return False
    channels, height, width = array.shape[1:]
    return channels in (1, 3) and all(_LEAST_PIXELS <= size <= _MOST_PIXELS for size in (height, width))


def _picture(image: "Array") -> str:
    """One image [channels, height, width], its values stretched from black to white."""
    import numpy as np
    from matplotlib.image import imsave

    values = np.nan_to_num(image.astype(np.float64))
    low, high = values.min(), values.max()
    pixels = np.moveaxis((values - low) / (high - low or 1), 0, -1)
    stream = io.BytesIO()
    imsave(stream, np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels, format="png")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
