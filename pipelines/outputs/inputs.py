"""Opening what a command reads, and saying what was assumed of it."""

from __future__ import annotations

from collections.abc import Iterable

import click

from tilenet.volumes import Volume, VolumeReference


def open_input(reference: VolumeReference) -> Volume:
    """Open an input, and say on stderr what was assumed where its metadata leave doubt.

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
    return volume


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
