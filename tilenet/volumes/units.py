"""Units of length, however a file spells them."""

from __future__ import annotations

#: Nanometres per unit, by every spelling seen: OME-Zarr's words, OME-XML's and ImageJ's short ones,
#: Å and µ each as one of two characters, and as ImageJ escapes µ in a file.
NANOMETRES = {
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-3),
    **dict.fromkeys(("\u00e5", "a\u030a", "\u212b", "a", "angstrom", "\u00e5ngstr\u00f6m"), 0.1),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "\\u00b5m", "\\u03bcm"), 1e3),
    **dict.fromkeys(("micron", "micrometer", "micrometre"), 1e3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e6),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e7),
    **dict.fromkeys(("m", "meter", "metre"), 1e9),
    **dict.fromkeys(("inch", "inches", "in"), 2.54e7),
}


def nanometres_per(unit: object) -> float | None:
    """Say how many nanometres a unit has.

    Parameters
    ----------
    unit : object
        As a file states it, in any case, singular or plural.

    Returns
    -------
    float or None
        None when it is not stated, or not understood.
    """
    word = str(unit).strip().strip('"').lower() if isinstance(unit, str) else ""
    return NANOMETRES.get(word, NANOMETRES.get(word.removesuffix("s")))
