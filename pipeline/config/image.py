"""From image files to pixels."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from pipeline.before import Before, concise
from pipeline.config.section import BadKey, Section, Side, both_sides

# Raised whenever the same image file and configuration would become other pixels.
PIXEL_RULES = 2

# Random views are cut out of an image resized to so many times `size`, unless `resize_to` says more: where no crop is
# smaller than `size` less will do, and a photograph seldom has more to show.
_MOST_FOR_RANDOM = 2

# Filters that only Pillow has: torch resizes tensors with the others.
_PILLOW_FILTERS = ("lanczos", "box")


class RandomViews(Section):
    """Several crops of each image, drawn anew for each of them: `image.views: {random: 4, scale: [0.8, 1.0]}`."""

    random: Annotated[int, Field(ge=1, le=1024)]
    """How many."""
    scale: tuple[float, float] = (0.8, 1.0)
    """Smallest and largest side of a crop, as a share of that of the largest one."""
    flip: bool = True
    """Whether half of them are mirrored left to right."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another seed draws other crops. Those of an image depend on its key, the number of the view, and this."""

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> Self:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise BadKey("scale", list(self.scale), "give two shares of a side, 0 < smallest <= largest <= 1")
        return self


def _kind_of_views(value: Any) -> str:
    return "either-keys" if isinstance(value, dict | RandomViews) else "either-name"


Views = Annotated[
    Annotated[Literal["center", "flip", "ten_crop"], Tag("either-name")] | Annotated[RandomViews, Tag("either-keys")],
    Discriminator(_kind_of_views),
]


class ImageConfig(Section):
    """From a decoded image of any size to the pixels that are encoded."""

    size: Annotated[tuple[Side, Side], BeforeValidator(both_sides)]
    """Height and width in pixels; one number means both."""
    resize: Literal["shortest", "stretch", "none", "adm"] = "shortest"
    """`shortest` scales until the image just covers `size`, `stretch` ignores the aspect ratio; `adm` scales as
    `shortest`, first by halves with a box filter, then bicubic, as ADM and LlamaGen do."""
    resize_to: Annotated[Side | None, Before(None)] = None
    """The shorter side before the crop, at least the shorter side of `size`; the image is scaled until it just covers
    `size` enlarged so much."""
    crop: Literal["center", "none"] = "center"
    """What is cut from the resized image; with `none` an image of another size is rejected."""
    interpolation: Literal["bilinear", "bicubic", "lanczos", "box"] = "bicubic"
    """Resampling filter, always antialiased; `lanczos` and `box` are Pillow's."""
    decoder: Literal["torchvision", "turbojpeg", "nvjpeg", "pillow"] = "torchvision"
    """What decodes RGB and grey JPEG files: torchvision; `turbojpeg`, at a smaller scale where that will do; `nvjpeg`,
    on the GPU. Everything else is read by Pillow. With `pillow` all is, and Pillow also resizes."""
    plain: Annotated[bool, Before(False)] = False
    """Read files as `Image.open(file).convert("RGB")` does, and most published scripts: not turned as EXIF says,
    without what transparency means. With the decoder `pillow` only."""
    views: Annotated[Views, Before("center")] = "center"
    """Crops of each image, each with tokens of its own: the `center` alone; `flip`, and its mirror image; `ten_crop`,
    corners and centre of a square of side `resize_to`, and the same of its mirror image; or `random`, see there."""
    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """A larger image is rejected before it is decoded."""

    @property
    def num_views(self) -> int | None:
        """V, the views of each image; None for the centre alone."""
        if isinstance(self.views, RandomViews):
            return self.views.random
        return {"center": None, "flip": 2, "ten_crop": 10}[self.views]

    @property
    def gpu_decodes(self) -> bool:
        """Whether JPEGs are decoded by a GPU."""
        return self.decoder == "nvjpeg"

    @property
    def covered(self) -> tuple[int, int]:
        """Height and width that a resized image just covers: `size`, scaled until its shorter side is `resize_to`.

        Without `resize_to` it is `size` itself, but for random views so much more that none has to be enlarged, up to
        twice as much.
        """
        height, width = self.size
        side = shorter = min(self.size)
        if self.resize_to is not None:
            side = self.resize_to
        elif isinstance(self.views, RandomViews):
            side = min(math.ceil(shorter / self.views.scale[0]), _MOST_FOR_RANDOM * shorter)
        return round(height * side / shorter), round(width * side / shorter)

    @property
    def centered(self) -> "ImageConfig":
        """The same with the centre of each image alone: what a tokenizer is trained on."""
        return self if self.views == "center" else self.model_copy(update={"views": "center"})

    def identity(self) -> dict[str, Any]:
        """All that decides the pixels, and so the tokens."""
        tree = self.model_dump(mode="json", exclude={"max_pixels"})
        return {**concise(ImageConfig, tree), "rules": PIXEL_RULES}

    @model_validator(mode="after")
    def _keys_go_together(self) -> Self:
        self._check_pillow()
        self._check_resize_to()
        self._check_views()
        return self

    def _check_pillow(self) -> None:
        if self.decoder != "pillow":
            remedy = f"only Pillow does that, and image.decoder is {self.decoder}; set image.decoder=pillow"
            if self.interpolation in _PILLOW_FILTERS:
                raise BadKey("interpolation", self.interpolation, f"{remedy}, or image.interpolation=bicubic")
            if self.resize == "adm":
                raise BadKey("resize", self.resize, f"{remedy}, or image.resize=shortest")
            if self.plain:
                raise BadKey("plain", self.plain, remedy)
        if self.resize == "adm" and self.interpolation != "bicubic":
            raise BadKey("interpolation", self.interpolation, "image.resize=adm ends in bicubic; leave it out")

    def _check_resize_to(self) -> None:
        if self.resize_to is None:
            return
        if self.resize_to < min(self.size):
            raise BadKey("resize_to", self.resize_to, f"less than the {min(self.size)} of image.size; give at least it")
        if self.resize == "none":
            raise BadKey("resize_to", self.resize_to, "image.resize=none resizes nothing; leave one of the two out")
        if self.crop == "none" and self.resize_to > min(self.size):
            raise BadKey("resize_to", self.resize_to, "image.crop=none would reject every image; leave one out")

    def _check_views(self) -> None:
        random = isinstance(self.views, RandomViews)
        if self.crop == "none" and (random or self.views == "ten_crop"):
            raise BadKey("views", _named(self.views), "these are crops, and image.crop is none; set image.crop=center")
        if random and self.resize == "none":
            raise BadKey(
                "views", _named(self.views), "crops are resized, and image.resize is none; set image.resize=shortest"
            )
        if self.views == "ten_crop" and (self.resize_to is None or self.resize_to <= min(self.size)):
            larger = math.floor(1.1 * min(self.size))
            raise BadKey(
                "views",
                self.views,
                f"cut out of a square larger than image.size: set image.resize_to to its side, such as {larger}",
            )


def _named(views: str | RandomViews) -> str:
    return views if isinstance(views, str) else "random"
