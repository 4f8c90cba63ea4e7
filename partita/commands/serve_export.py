"""``partita serve export``: a trained checkpoint as a folder that vLLM serves."""

from __future__ import annotations

from pathlib import Path

import click

from partita.display import quiet_console
from storage.errors import UsageError


@click.command("export")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--base", type=click.Path(path_type=Path), metavar="FOLDER", help="The base model of a LoRA checkpoint.")
@click.option("--name", metavar="NAME", help="The model's name at an endpoint.  [default: the checkpoint's]")
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float16", "float32"]),
    help="What the weights are stored as.  [default: as they are]",
)
def command(checkpoint: Path, out: Path, base: Path | None, name: str | None, dtype: str | None) -> None:
    """Write CHECKPOINT to OUT for serving: LoRA merged, the embedding head folded, hashes in OUT/partita.json.

    CHECKPOINT is what training wrote, or a folder with a published LLaVA-OneVision over Qwen2. OUT is served by
    `partita serve vllm OUT`, or without vLLM by `partita serve --model OUT`.
    """
    if not checkpoint.is_dir():
        raise UsageError(f"there is no checkpoint at {checkpoint}: give the folder that training wrote")
    try:
        import torch

        from serving.llava.export import export
    except ImportError as error:
        raise UsageError(f"exporting needs {error.name}: pip install 'partita[train]'") from None
    console = quiet_console()
    done = export(
        checkpoint, out, base=base, name=name, dtype=getattr(torch, dtype) if dtype else None,
        say=lambda words: console.print(words, highlight=False),
    )  # fmt: skip
    click.echo(f"{done.name}: {done.bytes / 1e6:,.0f} MB in {done.folder}")
    if done.for_vllm:
        click.echo(f"serve it: partita serve vllm {done.folder}")
    else:
        click.echo(f"vLLM has no vision tower like this model's; serve it: partita serve --model {done.folder}")
