"""``partita serve vllm MODEL``: an exported model behind two vLLM runners, watched."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path

import click

from partita.keys import own_key
from partita.settings import read_environment
from serving.runners import Patience, serve_runners
from serving.server import listen, refuse_open_door
from serving.vllm import Runner, Setup, check_model, find_vllm, model_name, runners
from storage.errors import UsageError


@click.command("vllm")
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL")
@click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="[-- VLLM-OPTIONS...]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Other than loopback needs PARTITA_API_KEY.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Where chat is answered.")
@click.option(
    "--embed-port",
    type=click.IntRange(1, 65535),
    default=8001,
    show_default=True,
    help="Where embeddings are answered.",
)
@click.option(
    "--images", type=click.IntRange(1), default=8, show_default=True, metavar="N", help="Images in one prompt, at most."
)
@click.option("--gpus", metavar="LIST", help='GPUs of both runners, such as "0,1".  [default: what vLLM sees]')
@click.option("--embed-gpus", metavar="LIST", help="GPUs of the embedding runner, if it gets others.")
@click.option(
    "--memory-split",
    metavar="G,E",
    help="Shares of GPU memory: generating, embedding.  [default: 0.6,0.3; each 0.9 on GPUs of its own]",
)
@click.option(
    "--tensor-parallel-size",
    type=click.IntRange(1),
    metavar="N",
    help="GPUs that one runner is spread over.  [default: all that are named for it, or 1]",
)
@click.option(
    "--max-model-len", type=click.IntRange(1), metavar="N", help="Longest prompt and reply.  [default: the model's own]"
)
@click.option("--dtype", default="auto", show_default=True, help="Of weights and activations.")
@click.option("--generate-args", metavar="ARGS", default="", help="Options of vLLM's for the generating runner.")
@click.option("--embed-args", metavar="ARGS", default="", help="Options of vLLM's for the embedding runner.")
@click.option(
    "--vllm",
    "executable",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="vLLM's command.  [default: beside this Python, or on PATH]",
)
@click.option(
    "--logs",
    type=click.Path(path_type=Path),
    default=Path(".partita/vllm"),
    show_default=True,
    metavar="FOLDER",
    help="Where the runners' logs go.",
)
@click.option(
    "--start-timeout",
    type=click.FloatRange(0, min_open=True),
    default=900.0,
    show_default=True,
    metavar="S",
    help="Seconds until a runner has to answer.",
)
def command(
    model: Path,
    extra: tuple[str, ...],
    host: str,
    port: int,
    embed_port: int,
    images: int,
    gpus: str | None,
    embed_gpus: str | None,
    memory_split: str | None,
    tensor_parallel_size: int | None,
    max_model_len: int | None,
    dtype: str,
    generate_args: str,
    embed_args: str,
    executable: Path | None,
    logs: Path,
    start_timeout: float,
) -> None:
    """Serve MODEL, a folder that `partita serve export` made, with vLLM: chat and embeddings.

    Two runners of vLLM are started and watched, one that generates and one that embeds. When both answer, stdout gets
    one line: the `partita run` that uses them. A runner that ends or hangs is started again; Ctrl-C stops both. Options
    after -- go to both runners as they are.
    """
    key = own_key(read_environment())
    api_key = key.get_secret_value() if key else None
    refuse_open_door(host, api_key)
    caution = check_model(model)
    setup = Setup(
        executable=find_vllm(executable),
        model=model,
        name=model_name(model),
        host=host,
        port=port,
        embed_port=embed_port,
        images=images,
        memory=_shares(memory_split),
        gpus=_listed(gpus),
        embed_gpus=_listed(embed_gpus),
        tensor_parallel=tensor_parallel_size,
        max_model_len=max_model_len,
        dtype=dtype,
        extra=extra,
        generate_extra=_arguments("--generate-args", generate_args),
        embed_extra=_arguments("--embed-args", embed_args),
        api_key=api_key,
    )
    generate, embed = runners(setup)
    for option, number in (("--port", port), ("--embed-port", embed_port)):
        listen(host, number, option).close()  # vLLM would find out after minutes
    if caution is not None:
        _say(caution)
    serve_runners(
        (generate, embed),
        logs,
        take_turns=setup.share_gpus,
        say=_say,
        ready=lambda: _tell(generate, embed, setup.name, needs_key=api_key is not None),
        patience=Patience(start=start_timeout),
    )


def _tell(generate: Runner, embed: Runner, name: str, needs_key: bool) -> None:
    _say(f"both answer{', to who has PARTITA_API_KEY' if needs_key else ''}; Ctrl-C stops them")
    model = shlex.quote(name)
    line = (
        f"partita run COLLECTION --by CRITERION --endpoint {generate.url} --model {model}"
        f" --embed-endpoint {embed.url} --embed-model {model} --embed-mode native"
    )
    with suppress(BrokenPipeError):  # whoever read it has it; the runners are for others
        click.echo(line)


def _say(line: str) -> None:
    with suppress(OSError):
        click.echo(line, err=True)


def _shares(given: str | None) -> tuple[float, float] | None:
    if given is None:
        return None
    try:
        generate, embed = (float(share) for share in given.split(","))
    except ValueError:
        raise UsageError(f"--memory-split {given}: give two shares of a GPU's memory, such as 0.6,0.3") from None
    return generate, embed


def _listed(given: str | None) -> tuple[str, ...]:
    return tuple(gpu.strip() for gpu in (given or "").split(",") if gpu.strip())


def _arguments(option: str, given: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(given))
    except ValueError as error:
        raise UsageError(f"{option}: {error}; quote it as for a shell") from None
