"""``partita doctor``: what works here, and what to do about the rest."""

from __future__ import annotations

import asyncio
import platform
import shlex
from importlib.util import find_spec
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from agents.conclusions import Conclusion, pattern, read_conclusions
from agents.prompt_sets import shipped_set
from partita.commands import options
from partita.display import output, quiet_console
from partita.endpoints import connect
from partita.keys import find_keys
from partita.plain import plain
from partita.settings import EMBEDDED, Parameters, make_parameters, read_environment
from serving.probe import Finding, Report, probe
from storage.database import open_database
from storage.errors import PartitaError

_EXTRAS = {
    "local": ("torch", "transformers", "tokenizers", "safetensors", "starlette", "uvicorn"),
    "postgres": ("psycopg",),
    "parquet": ("pyarrow",),
    "text": ("sentence_transformers",),
}


@click.command("doctor")
@options.database
@click.option("--endpoint", envvar="PARTITA_ENDPOINT", metavar="URL", help="Endpoint to try.  [default: embedded]")
@click.option("--model", envvar="PARTITA_MODEL", metavar="NAME")
@click.option("--embed-endpoint", metavar="URL")
@click.option("--embed-model", metavar="NAME")
@options.as_json
def command(db: str, as_json: bool, **given: Any) -> None:
    """Check this installation, the database and the endpoint, and say how to run with it.

    The endpoint is asked some twenty small questions. Exit 4 if it can't be used, 2 if the database can't.
    """
    findings = [Finding("python", True, platform.python_version(), "")]
    for extra, modules in _EXTRAS.items():
        missing = [m for m in modules if find_spec(m) is None]
        advice = f"pip install 'partita[{extra}]'" if missing else ""
        findings.append(
            Finding(
                f"extra {extra}",
                None if missing else True,
                f"missing: {', '.join(missing)}" if missing else "installed",
                advice,
            )
        )
    try:
        with open_database(db) as database:
            findings.append(Finding("database", True, database.kind, ""))
    except PartitaError as e:
        findings.append(Finding("database", False, str(e), "--db URL or PARTITA_DB names another"))
    code = 2 if findings[-1].ok is False else 0
    try:
        tried, line = asyncio.run(_endpoint(given))
        code = 4 if any(f.essential and f.ok is False for f in tried) else code
        findings += [*tried, Finding("run", True, line)] if line else tried
    except PartitaError as e:
        findings.append(Finding("endpoint", False, str(e), ""))
        code = e.exit_code
    if as_json:
        options.print_json([{"name": f.name, "ok": f.ok, "detail": f.detail, "advice": f.advice} for f in findings])
    else:
        table = Table(box=None, show_header=False)
        for f in findings:
            if f.name == "run":
                continue
            mark = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[yellow]–[/]"}[f.ok]
            table.add_row(mark, f.name, escape(plain(f.detail)), f"[dim]{escape(plain(f.advice))}[/]")
        output().print(table)
        for f in findings:
            if f.name == "run":
                output().print(f"\n{escape(f.detail)}", highlight=False, soft_wrap=True)
    click.get_current_context().exit(code)


async def _endpoint(given: dict[str, Any]) -> tuple[list[Finding], str]:
    """What was found, and the command to run with it; no command where nothing can be clustered."""
    parameters = make_parameters({**given, "request_timeout": 60})
    console = quiet_console()

    def say(doing: str) -> None:
        console.print(f"[dim]trying: {escape(plain(doing))}[/]", highlight=False)

    asked = shipped_set("suit" if parameters.endpoint == EMBEDDED else "default", "the colour of the shape")
    say("the endpoint")
    async with connect(parameters, find_keys(read_environment()), say, max_attempts=2) as connection:
        report = await probe(
            connection.chat,
            connection.embedder,
            describe=asked.describe,
            membership=asked.membership,
            concludes=lambda reply: read_conclusions(reply).conclusions[0] is not Conclusion.UNKNOWN,
            pattern=pattern(1),
            say=say,
        )
    chat_fails = any(f.essential and f.ok is False and f.name != "embed mode" for f in report.findings)
    return report.findings, "" if chat_fails else _command(parameters, report)


def _command(parameters: Parameters, report: Report) -> str:
    """The line to paste; what is the default anyway is left out."""
    words = ["partita", "run", "COLLECTION", "--by", "CRITERION"]
    if parameters.endpoint != EMBEDDED:
        words += ["--endpoint", parameters.endpoint, "--model", report.model]
    if report.embed_mode is None:
        words += ["--embed-mode", "caption", "--embed-endpoint", "local"]
    else:
        words += ["--embed-mode", report.embed_mode]
        if parameters.embed_endpoint not in (None, parameters.endpoint):
            words += ["--embed-endpoint", str(parameters.embed_endpoint)]
        if report.embed_model != report.model:
            words += ["--embed-model", report.embed_model]
    words += ["--concurrency", str(report.concurrency)]
    if report.representatives is not None:
        words += ["--representatives", str(report.representatives), "--candidates", "1"]
    return shlex.join(words)
