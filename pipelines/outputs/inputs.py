"""Opening what a command reads, and saying what was assumed of it."""

from __future__ import annotations

from collections.abc import Iterable

import click

from tilenet.errors import InvalidData
from tilenet.volumes import Volume, VolumeReference, check_stored


def open_input(reference: VolumeReference, *, strict: bool = False) -> Volume:
    """Open an input, and say on stderr what is doubtful of it.

    One of which nothing is stored is refused.

    Parameters
    ----------
    reference : VolumeReference
    strict : bool
        Refuse what is doubtful too.

    Returns
    -------
    Volume
        Nothing of it read yet.
    """
    volume = reference.open()
    say_notes(volume.location, volume.notes, strict=strict)
    say_stored(volume, strict=strict)
    return volume


def say_stored(volume: Volume, *, strict: bool = False) -> None:
    """Refuse an input of which nothing is stored, and say on stderr where little is.

    Parameters
    ----------
    volume : Volume
    strict : bool
        Refuse one of which little is stored too.
    """
    note = check_stored(volume)
    say_notes(volume.location, [] if note is None else [note], strict=strict)


def say_notes(location: str, notes: Iterable[str], *, strict: bool = False) -> None:
    """Print what was assumed of an input, a line each, on stderr.

    Parameters
    ----------
    location : str
        What the user called it.
    notes : iterable of str
        A sentence each.
    strict : bool
        Refuse the input instead.
    """
    notes = tuple(notes)
    if strict and notes:
        cure = "Mend what it is, or leave out --strict."
        raise InvalidData(location, " ".join(notes).rstrip("."), cure)
    for note in notes:
        click.echo(f"Warning: {location}: {note}", err=True)
