"""The ``tilenet`` command: one subcommand per file, loaded when it is used."""

from __future__ import annotations

import importlib
import io
import signal
import sys
import traceback

import click

from pipelines.stopping import Stopped
from tilenet._version import __version__
from tilenet.errors import TilenetError
from tilenet.volumes.stores import redact

#: Where each command lives, and what it does: known without importing it.
COMMANDS = {
    "ingest": (
        "pipelines.derive.ingest",
        "Convert images (TIFF, PNG, HDF5, NumPy, Zarr) to OME-Zarr.",
    ),
    "label": (
        "pipelines.derive.label",
        "Masks to instances: connected components of a whole volume.",
    ),
    "weights": ("pipelines.derive.weights", "Instances to border weights for training."),
    "train": ("pipelines.train.command", "Train a U-Net on a volume and its labels."),
    "predict": ("pipelines.predict.command", "Predict a volume, Zarr to Zarr."),
    "verify": (
        "pipelines.verify.command",
        "Check that an output is complete, undamaged, and matches its provenance.",
    ),
    "evaluate": ("pipelines.evaluate.command", "Say how good a prediction is: errors and scores."),
    "plan": (
        "pipelines.predict.plan_command",
        "Say what a prediction would cost, and run nothing.",
    ),
    "cluster": ("pipelines.show_cluster", "Show where a command would compute."),
    "info": ("pipelines.info", "Describe a volume or a model."),
    "demo": ("pipelines.demo", "Synthetic EM, training, prediction and a picture."),
}


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are called.

    ``tilenet --help`` answers at once, and ``tilenet plan`` never loads PyTorch.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tilenet")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks of errors.")
def tilenet() -> None:
    """Segment electron-microscopy volumes of any size with U-Nets, exactly."""


def main() -> None:
    """Run the command line, and turn every error into a message and an exit code.

    0: done. 1: something was wrong, and the message says what. 2: wrong usage. 130 and 143:
    stopped by Ctrl-C and SIGTERM.
    """
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : list of str
        What follows the program's name.

    Returns
    -------
    int
        The exit code.
    """
    debug = "--debug" in arguments
    # Allowed anywhere: it is thought of when a command has already failed.
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        result = tilenet.main(args=arguments, prog_name="tilenet", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped at once. Run the same command again to go on.", err=True)
        return 128 + signal.SIGINT
    except Stopped as error:
        click.echo("Stopped. Run the same command again to go on.", err=True)
        return 128 + error.signal
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(redact(shown.getvalue()), err=True, nl=False)
        return error.exit_code
    except TilenetError as error:
        return _fail(error, str(error), debug)
    except Exception as error:  # the last resort: no traceback reaches a user without --debug
        text = f"unexpected {type(error).__name__}: {error}\nRun it with --debug to see where."
        return _fail(error, text, debug)
    return result if isinstance(result, int) else 0


def _fail(error: BaseException, text: str, debug: bool) -> int:
    if debug:
        click.echo(redact("".join(traceback.format_exception(error))), err=True)
    click.echo(f"Error: {redact(text)}", err=True)
    return 1
