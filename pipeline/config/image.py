"""From image files to pixels."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipeline.before import concise
from pipeline.config.section import Section, Side, both_sides

# Raised whenever the same image file and configuration would become other pixels.
PIXEL_RULES = 2


class ImageConfig(Section):
    """From a decoded image of any size to the pixels that are encoded."""

    size: Annotated[tuple[Side, Side], BeforeValidator(both_sides)]
    """Height and width in pixels; one number means both."""
    resize: Literal["shortest", "stretch", "none"] = "shortest"
    """`shortest` scales until the image just covers `size`, `stretch` ignores the aspect ratio."""
    crop: Literal["center", "none"] = "center"
    """What is cut from the resized image; with `none` an image of another size is rejected."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Resampling filter, always antialiased."""
    decoder: Literal["torchvision", "turbojpeg", "nvjpeg"] = "torchvision"
    """What decodes RGB and grey JPEG files: torchvision; `turbojpeg`, at a smaller scale where that will do; `nvjpeg`,
    on the GPU. Everything else is read by Pillow."""
    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """A larger image is rejected before it is decoded."""

    def identity(self) -> dict[str, Any]:
        """All that decides the pixels, and so the tokens."""
        tree = self.model_dump(mode="json", exclude={"max_pixels"})
        return {**concise(ImageConfig, tree), "rules": PIXEL_RULES}
