"""The options that every command has that samples."""

from typing import Annotated

import typer

Weights = Annotated[str, typer.Option(help="'best', a bundled name, a .safetensors file, or the folder of a run.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same picture.")]
Setting = Annotated[str, typer.Option(help="quick, standard, fine, or the paper's: paper-128, paper-256.")]
Steps = Annotated[int | None, typer.Option(help="Steps of the sampler; the setting's unless given.")]
Guidance = Annotated[float | None, typer.Option(help="How strongly the cloth is followed; 1 is no guidance.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
