"""Opening what a command reads, and saying what was assumed of it."""

from __future__ import annotations

from collections.abc import Iterable

import click

from tilenet.volumes import Volume, VolumeReference, check_stored


def open_input(reference: VolumeReference) -> Volume:
    """Open an input, and say on stderr what is doubtful of it.

    One of which nothing is stored is refused.

    Parameters
    ----------
    reference : VolumeReference

    Returns
    -------
    Volume
        Nothing of it read yet.
    """
    volume = reference.open()
    say_notes(volume.location, volume.notes)
    say_stored(volume)
    return volume


def say_stored(volume: Volume) -> None:
    """Refuse an input of which nothing is stored, and say on stderr where little is.

    Parameters
    ----------
    volume : Volume
    """
    note = check_stored(volume)
    say_notes(volume.location, [] if note is None else [note])


def say_notes(location: str, notes: Iterable[str]) -> None:
    """Print what was assumed in opening an input, a line each, on stderr.

    Parameters
    ----------
    location : str
        What the user called it.
    notes : iterable of str
        A sentence each.
    """
    for note in notes:
        click.echo(f"Warning: {location}: {note}", err=True)
