"""Which images a TIFF file holds: its series of pages, as tifffile finds them, put together.

Pages that were appended one by one are a stack where all are alike. Thumbnails and masks that
say that they are belong to an image and are none of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tilenet.errors import AmbiguousVolume, UnreadableVolume

#: A message lists at most so many images.
_LISTED = 20


@dataclass(frozen=True)
class Image:
    """An image of a file."""

    series: Any  # tifffile's, the first where several are put together
    index: int  # of that among the series of the file
    names: str  # its axes, without those of length 1
    sizes: tuple[int, ...]
    pages: tuple[Any, ...] = ()  # all its pages, where they are those of several series

    @property
    def page(self) -> Any:
        """The first page that says how it is stored."""
        return self.series.keyframe

    @property
    def leading(self) -> tuple[int, ...]:
        """The sizes that pages are counted by, not what is in one."""
        return self.sizes[: len(self.sizes) - self.page.ndim]

    @property
    def keyframes(self) -> list[Any]:
        """All pages that say how others are stored."""
        pages = self.pages or (self.series if self.series.is_multifile else [self.page])
        return list({id(page.keyframe): page.keyframe for page in pages if page}.values())

    def __str__(self) -> str:
        return f"{' x '.join(map(str, self.sizes))} {self.series.dtype}"


def choose_image(path: str, found: Sequence[Any], chosen: str | None) -> Image:
    """Choose the image with a number, the only one where none is given."""
    images = list_images(found)
    if not images:
        cure = "Copy it again, or open it in Fiji and save it anew"
        raise UnreadableVolume(path, "holds no image", cure)
    if chosen is None and len(images) == 1:
        return images[0]
    if chosen is not None and int(chosen) < len(images):
        return images[int(chosen)]
    seen = [f"{i}: {image}" for i, image in enumerate(images[:_LISTED])]
    seen += ["..."] if len(images) > _LISTED else []
    count = "1 image" if len(images) == 1 else f"{len(images)} images"
    problem = f"holds {count}" if chosen is None else f"has no image {chosen}, but {count}"
    cure = "Choose one of them with --series"
    raise AmbiguousVolume(path, problem, tuple(seen), cure, are_volumes=chosen is None)


def list_images(found: Sequence[Any]) -> list[Image]:
    """Put the series of a file together to images, which --series counts."""
    own = [s for s in found if not (s.keyframe.is_reduced or s.keyframe.is_mask)]
    alike: dict[Any, list[Any]] = {}
    for number, series in enumerate(own or found):
        alike.setdefault(_kind(series) or number, []).append(series)
    return [_image(parts, found.index(parts[0])) for parts in alike.values()]


def _kind(series: Any) -> tuple[object, ...] | None:
    """Give what pages of one stack have in common; None where the series is more than pages."""
    page = series.keyframe
    plain = series.kind == "generic" or (series.kind == "shaped" and series.size == page.size)
    if not plain or series.is_pyramidal:
        return None
    return (series.kind, page.shaped, page.axes, page.dtype, page.photometric)


def _image(parts: Sequence[Any], index: int) -> Image:
    first = parts[0]
    axes, sizes = first.get_axes(squeeze=False), first.get_shape(squeeze=False)
    kept = [(a, n) for a, n in zip(axes, sizes, strict=True) if n > 1 or a in "YX"]
    names, sizes = "".join(a for a, _ in kept), tuple(n for _, n in kept)
    if len(parts) == 1:
        return Image(first, index, names, sizes)
    # They differ in how they are stored only, so the order in the file is theirs.
    pages = tuple(sorted((p for series in parts for p in series), key=lambda page: page.index))
    inside = len(sizes) - first.keyframe.ndim
    return Image(first, index, f"I{names[inside:]}", (len(pages), *sizes[inside:]), pages)
