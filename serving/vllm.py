"""What two vLLM runners of one exported model are started with: commands, environments, addresses.

    generate   vllm serve MODEL --runner generate ...                   chat, on the port
    embed      vllm serve MODEL --runner pooling --convert embed ...    embeddings, on the embed port

A vLLM instance either generates or pools, so one model takes two. Nothing here starts anything; `serving.runners` does.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from storage.errors import UsageError

SHARED = (0.6, 0.3)
"""Shares of a GPU's memory when both runners use it. The weights are in both; the generating one needs more cache."""
OWN = (0.9, 0.9)

_LONGEST_NAME = 200
"""Characters of a model's name."""

_NEVER = {
    "--config": "what a file says can't be seen here, and a key or foreign code may be in it: give options one by one",
    "--hf-token": "nothing is fetched",
    "--api-key": "everybody on the machine can read it there: set PARTITA_API_KEY",
    "--trust-remote-code": "Partita serves no model that brings its own code",
    "--served-model-name": "the name is the one in the model's partita.json",
    "--host": "give Partita's own --host",
    "--port": "give Partita's own --port or --embed-port",
    "--runner": "one runner generates, the other pools",
    "--convert": "one runner generates, the other pools",
    "--uds": "the runners are watched by way of their ports",
    "--ssl-keyfile": "the runners are watched without TLS: put a proxy before them",
    "--ssl-certfile": "the runners are watched without TLS: put a proxy before them",
    "--ssl-ca-certs": "the runners are watched without TLS: put a proxy before them",
}


@dataclass(frozen=True)
class Setup:
    """How to serve a model. `api_key` is in no representation, and in no command."""

    executable: Path
    """vLLM's command."""
    model: Path
    """Folder of an exported model."""
    name: str
    """What the model is called in requests."""
    host: str = "127.0.0.1"
    port: int = 8000
    embed_port: int = 8001
    images: int = 8
    """Images in one prompt, at most."""
    memory: tuple[float, float] | None = None
    """Shares of a GPU's memory, generating and embedding; None: `SHARED`, or `OWN` for runners on different GPUs."""
    gpus: tuple[str, ...] = ()
    """What both runners see of the machine's GPUs; none named: what the environment lets them see."""
    embed_gpus: tuple[str, ...] = ()
    """GPUs of the embedding runner, if it has others."""
    tensor_parallel: int | None = None
    """GPUs that a runner is spread over; None: all that were named for it."""
    max_model_len: int | None = None
    """Tokens in prompt and reply, at most; None: what the model was made for."""
    dtype: str = "auto"
    extra: tuple[str, ...] = ()
    """More arguments for both runners, after ours: vLLM takes the last."""
    generate_extra: tuple[str, ...] = ()
    embed_extra: tuple[str, ...] = ()
    api_key: str | None = field(default=None, repr=False)

    @property
    def share_gpus(self) -> bool:
        """Whether the runners may have a GPU in common."""
        return not self.embed_gpus or not self.gpus or bool(set(self.gpus) & set(self.embed_gpus))


@dataclass(frozen=True)
class Runner:
    """One vLLM process to be: what to start, and where it will answer."""

    name: str
    """`generate` or `embed`."""
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    host: str
    """Where it is reached from this machine."""
    port: int

    @property
    def url(self) -> str:
        """Base URL of its API."""
        return f"http://[{self.host}]:{self.port}/v1" if ":" in self.host else f"http://{self.host}:{self.port}/v1"


def runners(setup: Setup, environ: Mapping[str, str] = os.environ) -> tuple[Runner, Runner]:
    """The generating runner and the embedding one.

    Raises:
        UsageError: the setup contradicts itself, or an extra argument is one that Partita decides.
    """
    _check(setup, environ)
    generate_memory, embed_memory = setup.memory or (SHARED if setup.share_gpus else OWN)
    generate = _runner(setup, environ, "generate", setup.port, setup.gpus, generate_memory)
    embed = _runner(setup, environ, "embed", setup.embed_port, setup.embed_gpus or setup.gpus, embed_memory)
    return generate, embed


def _runner(
    setup: Setup, environ: Mapping[str, str], name: str, port: int, gpus: tuple[str, ...], memory: float
) -> Runner:
    # said for both: left to itself, vLLM takes a model with sentence-transformers modules for one that pools
    kind = ("--runner", "generate") if name == "generate" else ("--runner", "pooling", "--convert", "embed")
    length = () if setup.max_model_len is None else ("--max-model-len", str(setup.max_model_len))
    command = (
        *(str(setup.executable), "serve", str(setup.model.absolute())),
        *kind,
        *("--served-model-name", setup.name),
        *("--host", setup.host),
        *("--port", str(port)),
        *("--limit-mm-per-prompt", json.dumps({"image": setup.images, "video": 0})),
        *("--gpu-memory-utilization", f"{memory:g}"),
        *("--tensor-parallel-size", str(setup.tensor_parallel or len(gpus) or 1)),
        *("--dtype", setup.dtype),
        *length,
        "--enable-prefix-caching",
        *("--disable-access-log-for-endpoints", "/health"),
        *setup.extra,
        *(setup.generate_extra if name == "generate" else setup.embed_extra),
    )
    return Runner(name, command, _environment(setup, environ, gpus), _from_here(setup.host), port)


def _environment(setup: Setup, environ: Mapping[str, str], gpus: tuple[str, ...]) -> dict[str, str]:
    """The user's environment without what is no business of vLLM's, and with what it needs."""
    theirs = {k: v for k, v in environ.items() if not k.endswith("_API_KEY") and not k.startswith("PARTITA_")}
    # an environment that isn't activated has its tools (ninja compiles kernels) beside its vllm
    theirs["PATH"] = os.pathsep.join((str(setup.executable.absolute().parent), environ.get("PATH", os.defpath)))
    theirs["HF_HUB_OFFLINE"] = "1"  # the model is a folder: whatever would be fetched is missing from it
    theirs.setdefault("VLLM_NO_USAGE_STATS", "1")
    # vLLM gives a conclusion's grammar 5 s: on a busy machine whoever comes first would be answered 500
    theirs.setdefault("VLLM_REGEX_COMPILATION_TIMEOUT_S", "60")
    if gpus:
        theirs["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    if setup.api_key:
        theirs["VLLM_API_KEY"] = setup.api_key
    return theirs


def _check(setup: Setup, environ: Mapping[str, str]) -> None:
    if setup.port == setup.embed_port:
        raise UsageError(f"both runners on port {setup.port}: give another --embed-port")
    if setup.embed_gpus and not setup.gpus:
        raise UsageError("--embed-gpus says where the embedding runner goes: say with --gpus where the other one does")
    for option, gpus in (("--gpus", setup.gpus), ("--embed-gpus", setup.embed_gpus)):
        if len(set(gpus)) < len(gpus):
            raise UsageError(f"{option} {','.join(gpus)}: name each GPU once")
        if gpus and setup.tensor_parallel and setup.tensor_parallel > len(gpus):
            raise UsageError(f"--tensor-parallel-size {setup.tensor_parallel}: {option} names only {len(gpus)}")
        _check_gpus(option, gpus, environ.get("CUDA_VISIBLE_DEVICES"))
    if setup.memory is not None:
        given = ",".join(f"{share:g}" for share in setup.memory)
        if not all(0 < share <= 1 for share in setup.memory):
            raise UsageError(f"--memory-split {given}: give two shares of a GPU's memory, above 0 and up to 1")
        if setup.share_gpus and sum(setup.memory) > 1 + 1e-9:
            raise UsageError(f"--memory-split {given}: the runners share a GPU, so together give 1 at most")
    if environ.get("VLLM_API_KEY") and not setup.api_key:
        # dropped in silence it would leave open what was meant to be closed
        raise UsageError("VLLM_API_KEY is set: set PARTITA_API_KEY instead, which `partita run` reads too")
    for arguments in (setup.extra, setup.generate_extra, setup.embed_extra):
        _check_arguments(arguments)


def _check_gpus(option: str, gpus: tuple[str, ...], ours: str | None) -> None:
    """See that no number is named which is not ours to use: a scheduler's word on that would be overwritten."""
    if ours is None:
        return
    visible = [gpu.strip() for gpu in ours.split(",")]
    for gpu in gpus:
        if gpu.isdecimal() and gpu not in visible:
            raise UsageError(
                f"{option} {','.join(gpus)}: GPU {gpu} is not in CUDA_VISIBLE_DEVICES={ours!r}: "
                f"choose among those, or leave {option} out"
            )


def _check_arguments(arguments: Sequence[str]) -> None:
    if arguments and not arguments[0].startswith("-"):
        raise UsageError(f"{arguments[0]!r} is no option of vLLM's: one model at a time, and options after --")
    for argument in arguments:
        option = argument.partition("=")[0].replace("_", "-")
        for ours, why in _NEVER.items():
            if option == ours or (len(option) > 3 and ours.startswith(option)):  # argparse takes short forms
                raise UsageError(f"{argument.partition('=')[0]} can't be handed to vLLM: {why}")


def _from_here(host: str) -> str:
    """The address at which this machine reaches what listens on `host`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def find_vllm(named: Path | None = None) -> Path:
    """vLLM's command: the one named, otherwise the one beside this Python, otherwise the one on PATH.

    Raises:
        UsageError: there is none.
    """
    if named is not None:
        found = shutil.which(named if named.is_absolute() else Path.cwd() / named)
        if found is None:
            raise UsageError(f"{named} is no command: --vllm names the one of vLLM's environment, such as ENV/bin/vllm")
        return Path(found)
    beside = shutil.which("vllm", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("vllm")
    if found is None:
        raise UsageError(
            "vLLM is not installed here: pip install 'partita[vllm]', or name another environment's with --vllm PATH"
        )
    return Path(found)


def check_model(folder: Path) -> str | None:
    """See that `folder` can be an exported model; returns a caution, in one line, or None.

    Raises:
        UsageError: it is not there, or is no such model; says what makes one.
    """
    if not folder.is_dir():
        raise UsageError(
            f"there is no model folder at {folder}: check the path, or make one with `partita serve export`"
        )
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} has no config.json: make a folder for vLLM with `partita serve export`")
    config = _read_json(folder / "config.json")
    vision = config.get("vision_config")
    if isinstance(vision, dict) and vision.get("model_type") == "partita_tower":
        ours = f"partita serve --model {shlex.quote(str(folder))}"
        raise UsageError(f"vLLM has no vision tower like this model's; serve it with `{ours}`")
    if not isinstance(config.get("architectures"), list):
        raise UsageError(f"{folder / 'config.json'} names no architecture: export the model again")
    if not any(folder.glob("*.safetensors")):
        raise UsageError(f"{folder} has no weights (*.safetensors): export the model again")
    if not (folder / "modules.json").is_file():
        return (
            f"{folder} has no modules.json, so it was not exported: embeddings will be bare states, without a trained "
            "head, and Partita's chat template and `<embedding>` are missing; "
            f"`partita serve export {shlex.quote(str(folder))} OUT` makes a folder that has them"
        )
    return None


def model_name(folder: Path) -> str:
    """What an exported model calls itself; the folder's name if it doesn't.

    Raises:
        UsageError: it is no name for commands, requests and lines: says how to give it another.
    """
    about = folder / "partita.json"
    told = _read_json(about) if about.is_file() else {}
    name = told.get("name", folder.absolute().name)
    why = fault_of_name(name)
    if why is None:
        return str(name)
    where, remedy = (about, "export it again with `partita serve export --name NAME`")
    if "name" not in told:
        where, remedy = (folder, f"rename the folder, or {remedy}")
    raise UsageError(f"the model's name in {str(where)!r} {why}: {remedy}")


def fault_of_name(name: object) -> str | None:
    """Why a model can't be called so, None if it can: the name is an argument of a command and a word in a line."""
    if not isinstance(name, str) or not name:
        return "is no text"
    if len(name) > _LONGEST_NAME:
        return f"has {len(name)} characters, more than {_LONGEST_NAME}"
    if name.startswith("-"):
        return f"begins with a hyphen, as options do ({name!a})"
    if not name.isprintable() or " " in name:  # no other blank is printable
        return f"has blanks or control characters ({name!a})"
    return None


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} can't be read ({why}): export the model again") from None
    return content if isinstance(content, dict) else {}
