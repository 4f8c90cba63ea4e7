"""Writes docs/benchmarks.md and its plots from the figures that `make bench` left in build/bench.

python -m benchmarks.report
python -m benchmarks.report --figures build/bench --docs docs
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Rows = list[dict[str, Any]]

LOOKS = {
    "evidence": {"color": "#1f5fa8", "marker": "o"},
    "paper": {"color": "#c2571a", "marker": "s"},
    "lock-step listing": {"color": "#4d8a3d", "marker": "^"},
    "K-means": {"color": "#777777", "marker": "", "linestyle": "--"},
    "HDBSCAN": {"color": "#777777", "marker": "", "linestyle": ":"},
}
METHODS = {
    "evidence": "`evidence`",
    "paper": "`paper`",
    "lock-step listing": "published listing, lock step",
    "K-means": "K-means, number of clusters given",
    "HDBSCAN": "HDBSCAN",
}
STYLE = {
    "figure.dpi": 130, "font.size": 12, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.alpha": 0.3, "lines.linewidth": 2, "lines.markersize": 7, "legend.frameon": False, "axes.titlesize": 12,
    "axes.axisbelow": True,
}  # fmt: skip
PART_COLORS = {
    "search": "#1f5fa8", "loop": "#86acd6", "ledger": "#c2571a", "checkpoints": "#e6a97f", "others": "#bbbbbb",
}  # fmt: skip

PAGE = Path(__file__).with_name("page.md")
"""What the page says around the tables."""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def load(folder: Path) -> dict[str, Any]:
    """All figures by the name of their benchmark."""
    return {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))}


# -- tables -----------------------------------------------------------------------------------------------------------


def search_table(rows: Rows) -> str:
    out = []
    for error, method in dict.fromkeys((r["error"], r["method"]) for r in rows):
        own = [r for r in rows if (r["error"], r["method"]) == (error, method)]
        asked = np.mean([r["questions_per_item"] for r in own])
        given = "given" if method == "K-means" else "found"
        found = ", ".join(f"{r['clusters']}" for r in own) + f" of {own[0]['classes']}"
        nmi, ari = (f"{np.mean([r[what] for r in own]):.3f}" for what in ("nmi", "ari"))
        out.append((f"{error:.0%}", METHODS[method], nmi, ari, f"{asked:.2f}" if asked else "none", f"{found} {given}"))
    return table(("wrong answers", "method", "NMI", "ARI", "questions per item", "clusters"), out)


def utilisation_table(rows: Rows) -> str:
    head = (
        "search",
        "items",
        "wrong answers",
        "questions",
        "answer times, s",
        "wall time, s",
        "ratio",
        "NMI",
        "clusters",
    )
    return table(
        head,
        (
            (
                r["what"], f"{r['items']:,} {r['shown']}", f"{r['error']:.0%}", f"{r['questions']:,}",
                r["answer_seconds"], r["wall_seconds"], f"**{r['ratio']:.2f}**", f"{r['nmi']:.3f}",
                f"{r['clusters']} of {r['classes']} found",
            )
            for r in rows
        ),
    )  # fmt: skip


def cpu_table(rows: Rows) -> str:
    parts = list(PART_COLORS)
    head = (
        "policy", "database", "assessments", "answers, ms", "a second", "**ms each**", *parts, "bare loop, ms", "ratio",
    )  # fmt: skip
    return table(
        head,
        (
            (
                f"`{r['policy']}`", r["database"], f"{r['assessments']:,}", f"{1000 * r['latency']:.0f}",
                r["per_second"], f"**{r['cpu_ms']:.2f}**", *(f"{r['parts_ms'][p]:.2f}" for p in parts),
                f"{r['bare_cpu_ms']:.2f}", f"{r['ratio']:.1f}",
            )
            for r in rows
        ),
    )  # fmt: skip


def bytes_table(rows: Rows) -> str:
    head = ("policy", "database", "assessments", "**bytes each**", "bare")
    return table(
        head,
        (
            (f"`{r['policy']}`", r["database"], f"{r['assessments']:,}", f"**{r['bytes']:,}**", f"{r['bare_bytes']:,}")
            for r in rows
        ),
    )


def client_table(rows: Rows) -> str:
    names = {"ours": "ours", "openai": "`openai`, as documented", "httpx": "bare httpx", "aiohttp": "bare aiohttp"}
    head = ("client", "CPU ms a call", "calls a second", "busy")
    return table(
        head, ((names[r["client"]], f"{r['cpu_ms']:.2f}", r["calls_per_second"], f"{r['busy']:.3f}") for r in rows)
    )


def graph_table(rows: Rows) -> str:
    head = ("items", "what", "seconds", "× product", "peak, GB", "edges", "components")
    return table(
        head,
        (
            (
                f"{r['items']:,} × {r['width']}", r["what"], r["seconds"], r.get("ratio", ""),
                f"{r['peak_bytes'] / 1e9:.2f}", f"{r['edges']:,}" if "edges" in r else "", r.get("components", ""),
            )
            for r in rows
        ),
    )  # fmt: skip


def verdict(measured: dict[str, float], bar: float, form: str) -> str:
    """Whether a bar was kept in this run, and by whom it wasn't."""
    missed = [f"{name} ({form.format(value)})" for name, value in measured.items() if value > bar]
    return f"Missed in this run: {'; '.join(missed)}." if missed else "Kept in this run."


# -- plots ------------------------------------------------------------------------------------------------------------


def search_plot(rows: Rows) -> Figure:
    figure, panels = plt.subplots(1, 3, figsize=(11, 4))
    errors = sorted({r["error"] for r in rows})
    shown = {"nmi": "NMI", "questions_per_item": "questions per item", "clusters": "clusters"}
    for axes, (what, title) in zip(panels, shown.items(), strict=True):
        for method, look in LOOKS.items():
            means = [np.mean([r[what] for r in rows if r["method"] == method and r["error"] == e]) for e in errors]
            if what != "questions_per_item" or any(means):
                axes.plot([100 * e for e in errors], means, label=method, **look)
        axes.set_title(title)
        axes.set_xlabel("wrong answers, %")
    panels[0].set_ylim(top=1.01)
    panels[1].set_ylim(0)
    panels[2].set_ylim(0)
    panels[2].axhline(rows[0]["classes"], color="#333333", linewidth=1)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="upper center", ncols=5, columnspacing=1.2)
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    return figure


def utilisation_plot(rows: Rows) -> Figure:
    figure, axes = plt.subplots(figsize=(8, 0.6 * len(rows) + 1.2))
    names = [f"{r['what'].split(',')[0]}\n{r['items']:,} {r['shown']}, {r['error']:.0%} wrong" for r in rows]
    colors = [next(str(look["color"]) for name, look in LOOKS.items() if r["what"].startswith(name)) for r in rows]
    most = 1.7 * max(r["ratio"] for r in rows)
    axes.set_xscale("log")
    axes.set_xlim(0.8, most)
    ticks = [t for t in (1, 2, 4, 8, 16, 32) if t <= most]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    _bars(axes, names, [r["ratio"] for r in rows], colors, "{:.2f}", bar=1.25)
    axes.set_xlabel("wall time / least possible (dashed: the bar)")
    figure.tight_layout()
    return figure


def cpu_plot(rows: Rows) -> Figure:
    figure, axes = plt.subplots(figsize=(8, 0.75 * len(rows) + 1.6))
    for i, r in enumerate(rows):
        left = 0.0
        for part, color in PART_COLORS.items():
            axes.barh(2.4 * i, r["parts_ms"][part], left=left, color=color, height=0.95, label=None if i else part)
            left += r["parts_ms"][part]
        axes.barh(2.4 * i + 1, r["bare_cpu_ms"], color="#ffffff", edgecolor="#333333", height=0.85,
                  label=None if i else "bare loop, same rows")  # fmt: skip
    axes.axvline(2, color="#333333", linestyle="--", linewidth=1)
    names = [f"{r['policy']}, {r['database']}\n{r['assessments']:,} of {1000 * r['latency']:.0f} ms" for r in rows]
    axes.set_yticks([2.4 * i + 0.5 for i in range(len(rows))], names, fontsize=11)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("processor time of an assessment, ms (dashed: the bar)")
    figure.legend(*axes.get_legend_handles_labels(), loc="upper center", ncols=3, fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.65 / figure.get_figheight()))
    return figure


def bytes_plot(rows: Rows) -> Figure:
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(rows) + 1.2))
    names = [f"{r['policy']}, {r['database']}, {r['assessments']:,}" for r in rows]
    _bars(axes, names, [r["bytes"] for r in rows], [str(LOOKS[r["policy"]]["color"]) for r in rows], "{:,.0f}", 3000)
    axes.set_xlim(0, 3200)
    axes.set_xlabel("bytes on disk of an assessment (dashed: the bar)")
    figure.tight_layout()
    return figure


def graph_plot(rows: Rows) -> Figure:
    sizes = list(dict.fromkeys(r["items"] for r in rows))
    figure, panels = plt.subplots(1, 2 * len(sizes), figsize=(2.6 * 2 * len(sizes), 3.2), squeeze=False)
    colors = {"product": "#999999", "auto": "#1f5fa8", "given": "#86acd6", "approximate": "#4d8a3d"}
    for i, size in enumerate(sizes):
        own = [r for r in rows if r["items"] == size]
        for axes, what, scale in ((panels[0, 2 * i], "seconds", 1), (panels[0, 2 * i + 1], "peak_bytes", 1e9)):
            bars = axes.bar(
                [r["what"] for r in own], [r[what] / scale for r in own], color=[colors[r["what"]] for r in own]
            )
            axes.bar_label(bars, fmt="%.3g", fontsize=11)
            axes.set_title(f"{size:,}: {'seconds' if what == 'seconds' else 'peak GB'}")
            axes.grid(visible=False, axis="x")
            axes.margins(y=0.15)
            axes.tick_params(axis="x", labelsize=11)
    figure.tight_layout()
    return figure


def _bars(axes: Axes, names: list[str], values: list[float], colors: list[str], form: str, bar: float) -> None:
    """Horizontal bars with their values, and a dashed line where they should end."""
    axes.axvline(bar, color="#333333", linestyle="--", linewidth=1)
    bars = axes.barh(range(len(names)), values, color=colors, height=0.7)
    said = axes.bar_label(bars, [form.format(v) for v in values], padding=4)
    for text in said:
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
    axes.set_yticks(range(len(names)), names, fontsize=11)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")


# -- the page ---------------------------------------------------------------------------------------------------------


def page(figures: dict[str, Any]) -> str:
    """The page's text."""
    on, search, used = figures["machine"], figures["search"], figures["utilisation"]
    assessed, client, world = figures["assessments"], figures["client"], figures["search"]["world"]
    named = {f"`{r['policy']}`, {r['database']}, {r['assessments']:,}": r for r in assessed["rows"]}
    pictures = {f"{r['error']:.0%} wrong": r["ratio"] for r in used["rows"] if r["shown"] == "pictures"}
    return Template(PAGE.read_text()).substitute(
        on | {"packages": ", ".join(f"{name} {number}" for name, number in on["packages"].items())},
        items=f"{world['items']:,}", classes=world["classes"], noise=world["noise"], stray=f"{world['stray']:.0%}",
        seeds=" and ".join(map(str, dict.fromkeys(r["seed"] for r in search["rows"]))), most=search["most"],
        search=search_table(search["rows"]),
        in_flight=used["in_flight"], latency=f"{1000 * used['latency']:.0f}",
        utilisation=utilisation_table(used["rows"]), utilisation_seed=used["rows"][0]["seed"],
        picture_kb=used["picture_kb"], busy_verdict=verdict(pictures, 1.25, "{:.2f}"),
        cpu_verdict=verdict({name: r["cpu_ms"] for name, r in named.items()}, 2, "{:.2f} ms"),
        bytes_verdict=verdict({name: r["bytes"] for name, r in named.items()}, 3000, "{:,.0f}"),
        assess_error=f"{assessed['error']:.0%}", assess_seed=assessed["seed"], cpu=cpu_table(assessed["rows"]),
        reply_bytes=assessed["rows"][0]["reply_bytes"], bytes=bytes_table(assessed["rows"]),
        client_calls=f"{client['calls']:,}", client_latency=f"{1000 * client['latency']:.0f}",
        client=client_table(client["clients"]), graph=graph_table(figures["graph"]),
    )  # fmt: skip


def write(figures: dict[str, Any], docs: Path) -> None:
    """Write the page and its plots."""
    images = docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        plots = {
            "search": search_plot(figures["search"]["rows"]),
            "utilisation": utilisation_plot(figures["utilisation"]["rows"]),
            "cpu": cpu_plot(figures["assessments"]["rows"]),
            "bytes": bytes_plot(figures["assessments"]["rows"]),
            "graph": graph_plot(figures["graph"]),
        }
        for name, figure in plots.items():
            figure.savefig(images / f"bench-{name}.png", metadata={"Software": None})
            plt.close(figure)
    (docs / "benchmarks.md").write_text(page(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, default=Path("build/bench"), help="where the figures are")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the page goes")
    a = parser.parse_args()
    write(load(a.figures), a.docs)


if __name__ == "__main__":
    main()
