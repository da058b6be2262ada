"""`pictures [SCHEME …]`: what positional schemes do, drawn from their code; `--run RUN`: as a checkpoint learned it."""

from pathlib import Path

import jax

from experiments.command_line import Parser, run_command, use_compilation_cache
from experiments.config import StudyConfig
from experiments.evaluation.checkpoint import open_checkpoint, overridden
from experiments.overrides import apply_overrides
from experiments.pictures.curves import fixed_schemes, is_learned, learned_curves, quantity, title_of
from experiments.report.page import sheet
from experiments.report.report import to_csv
from experiments.report.schemes import Panel, Schemes, draw, panels_of, spectra_of
from experiments.runs import override_run, read_context, read_run
from models.config import ModelConfig
from models.errors import InvalidInput, require, require_choice
from models.positions import PositionScheme, Rotary, Scaling
from train.config import fill_lengths
from train.configuration import from_config_dict, to_config_dict
from train.files import write_whole

TIMES = 16


def main() -> None:
    parser = Parser(
        "pictures",
        "Draws each scheme's bias or decay against distance and the rotary spectrum under every scaling: a page, "
        "figures as SVG, their numbers as CSV.",
    )
    parser.add_argument(
        "schemes", metavar="SCHEME", nargs="*", help=f"of {', '.join(fixed_schemes())} (default: all of these)"
    )
    parser.add_argument("--run", type=Path, help="a run folder, STUDY/runs/ID: what its checkpoint learned, by layer")
    parser.add_argument("--trained", type=int, help="tokens trained at (default: as configured, 128)")
    parser.add_argument(
        "--length", type=int, help=f"tokens of the text that is read (default: {TIMES} × those trained)"
    )
    parser.add_argument("--output", type=Path, help="folder for the files (default: pictures, or RUN/pictures)")
    arguments, overrides = parser.parse()
    # Numbers of this size are no work for an accelerator, which another process may be using.
    jax.config.update("jax_platforms", "cpu")
    use_compilation_cache()
    for option in ("trained", "length"):
        value = getattr(arguments, option)
        require(value is None or value >= 2, f"--{option}", value, "at least 2 tokens")
    if arguments.run is None:
        content = _configured(arguments.schemes, arguments.trained, arguments.length, overrides)
        title, folder = "What positional schemes do", arguments.output or Path("pictures")
    else:
        if arguments.schemes or arguments.trained is not None:
            parser.error(
                "--run draws the schemes of its checkpoint, at its training length; leave SCHEME and --trained"
            )
        content, label = _learned(arguments.run, arguments.length, overrides)
        title, folder = f"What the schemes of {label} do", arguments.output or arguments.run / "pictures"
    figures = [figure for figure in draw(content) if figure.rows]
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        write_whole(folder / f"{figure.name}.csv", to_csv(figure.header, figure.rows))
        if figure.svg is not None:
            write_whole(folder / f"{figure.name}.svg", figure.svg)
    write_whole(folder / "index.html", sheet(title, figures))
    print(f"pictures: {folder / 'index.html'}")


def _configured(names: list[str], trained: int | None, length: int | None, overrides: dict[str, str]) -> Schemes:
    """Schemes as configured, each rotary one under every scaling and index transform."""
    panels: list[Panel] = []
    spectra: dict = {}
    for name in names or fixed_schemes():
        require_choice("SCHEME", name, PositionScheme.registry)
        model, trained_at = _model(name, trained, overrides)
        scheme = model.position
        if quantity(scheme) is not None and is_learned(scheme):
            raise InvalidInput(
                f"SCHEME = {name!r} is learned: --run RUN draws it from a checkpoint; without one, it must be one of "
                + ", ".join(fixed_schemes())
            )
        scalings = [other for other in Scaling.registry if other != "none"]
        title = title_of(scheme)
        panels += panels_of(scheme, title, model, trained_at, length or TIMES * trained_at, scalings, all_=True)
        if isinstance(scheme, Rotary):
            spectra[title] = spectra_of(scheme, model, trained_at, scalings)
    return Schemes(tuple(panels), spectra, trained_at)


def _model(name: str, trained: int | None, overrides: dict[str, str]) -> tuple[ModelConfig, int]:
    """The model that stands around a scheme, and the length trained at, with overrides of both."""
    for path in overrides:
        if path.split(".")[0] != "model":
            raise InvalidInput(f"config.{path} cannot be overridden here: pictures take config.model alone")
    opened = to_config_dict(StudyConfig())
    apply_overrides(StudyConfig, opened, {**overrides, "model.position.name": name})
    if trained is not None:
        opened.train.length = trained
    config = from_config_dict(StudyConfig, opened)
    return fill_lengths(config.model, config.train.length), config.train.length


def _learned(folder: Path, length: int | None, overrides: dict[str, str]) -> tuple[Schemes, str]:
    """The schemes of a checkpoint with what it learned, and its label."""
    trained = read_run(folder)
    context = read_context(folder, trained)
    under = override_run(trained, context, overrides)
    checkpoint = open_checkpoint(folder, trained)
    model = overridden(checkpoint, context.label, under.model, under.changes).model_at(0)
    at = trained.train.length
    longest = model.maximum_length()
    chosen = length or min(TIMES * at, longest or TIMES * at)
    panels = tuple(Panel(curve) for curve in learned_curves(model, checkpoint.parameters, chosen))
    if not panels:
        names = ", ".join(title_of(scheme) for scheme in model.schemes())
        raise InvalidInput(f"{folder}: {names} has no curve: what it does goes by the text, or not by distance")
    rotary = [scheme for scheme in model.schemes() if isinstance(scheme, Rotary)]
    scalings = [name for name in Scaling.registry if name != "none"]
    spectra = {title_of(scheme): spectra_of(scheme, model, at, scalings) for scheme in rotary}
    return Schemes(panels, spectra, at), context.label


if __name__ == "__main__":
    run_command(main)
