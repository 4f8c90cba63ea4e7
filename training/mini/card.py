"""The model card and `metrics.json`, written from what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.mini.config import MiniConfig
from training.mini.conversations import CRITERIA
from training.mini.pretrained import PACKAGE
from training.mini.shards import ATTRIBUTES


def write_card(config: MiniConfig, folder: Path, metrics: dict[str, Any]) -> None:
    """Write `README.md` and `metrics.json` into the weights folder."""
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(config, folder, metrics), encoding="utf-8")


def read_metrics(folder: Path) -> dict[str, Any]:
    """What was measured of these weights before; empty when nothing was."""
    path = folder / "metrics.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _card(config: MiniConfig, folder: Path, metrics: dict[str, Any]) -> str:
    size = sum(p.stat().st_size for p in folder.glob("*.safetensors")) / 1e6
    conditions, speed = metrics["conditions"], metrics["speed"]
    names = ("caption", "reworded caption", "membership", "noisy membership", "merge")
    table = "\n".join(f"| {c} | " + " | ".join(f"{metrics[n][c]:.3f}" for n in names) + " |" for c in CRITERIA)
    graph = "\n".join(
        f"| {c} | {g['pairs joined']:.4f} | {g['pairs kept apart']:.4f} "
        f"| {g['components']:.0f} ({g['classes']:.0f}) | {g['purity']:.3f} |"
        for c, g in metrics["graph"].items()
    )
    values = "\n".join(f"- **{c}**: {', '.join(ATTRIBUTES[c][1:])}" for c in CRITERIA)
    times = "\n".join(f"| {name} | {value} |" for name, value in speed.items())
    photos = metrics.get("photographs")
    outside = (
        f"On {photos['photographs']:,} photographs of real playing cards (224 pixels, other fonts and designs; none\n"
        f"was used in training) it names\n"
        f"the suit rightly in {photos['suit']:.3f} and the rank in {photos['rank']:.3f} of "
        "the cases.\nChance would be 0.25 and 0.077."
        if photos
        else "It has not been measured on photographs."
    )
    return f"""# partita-mini

A small LLaVA-Qwen2 ({metrics["parameters"]:,} parameters, {size:.1f} MB) made by `make mini`
(`python -m training.mini`). It describes an image under a criterion, says whether a candidate belongs with the
representatives of a cluster, whether two clusters are one, and embeds a description (METHOD 2). It ships with Partita
so that everything works without a download or an account.

## It knows only this world

It was trained on drawings that Partita renders itself (`partita examples`): one playing card or one piece of fruit in
each image. It knows the values below and nothing else. Whatever else it is shown, it will answer all the same, with one
of these words, and be wrong. For real collections use a real endpoint (`--endpoint`).

{values}

{outside}

## How good it is

Measured on what is stored here, through the serving code, on renders of seed {conditions["seed"]} of the evaluation
stream, which shares no seed with training: {conditions["renders of each kind"]} cards and as many fruit,
{conditions["image"]}; {conditions["questions of each kind and criterion"]} balanced questions of each kind and
criterion, {conditions["representatives"]} representatives a side. The designs, fonts and textures are those of the
training; what is new is every pose, light and combination. Share of right answers:

| criterion | caption | caption, reworded | membership | membership, 1 of 3 representatives wrong | merge |
|---|---|---|---|---|---|
{table}

Graph of METHOD 3 with its own descriptions, beta {metrics["beta"]:.1f}, tau {config.threshold}. A few items in a
hundred thousand pairs are enough to join two classes in one component; such components are what the agents take apart:

| criterion | same value: joined | different: kept apart | components (classes) | purity |
|---|---|---|---|---|
{graph}

Speed on {conditions["machine"]}, torch {conditions["torch"]} ({conditions["at"]}), on a machine that was busy with
other work:

| | ms |
|---|---|
{times}

`python -m training.mini --stage evaluate` measures again; all numbers are in `metrics.json`.

## How it was made

- **Data**: rendered with NumPy and Pillow only, a quarter of it fruit. Clean cards: 24 designs in four layouts. Wild
  cards, most of them: a design of its own for each, with drawn pips, inks, papers, frames, figures and pictures, in
  Pillow's font and those of matplotlib, as scans stretched to a square, crops, or photographs in perspective. Fruit:
  12 variants of each species and colour. Backgrounds, light, blur, noise, JPEG; every render is seen about
  {config.vision_reuse:.0f} times, moved, stretched and lit otherwise. Seed {config.seed}. No other data.
- **Vision tower**: {_trunk(config)}, {config.image_size} x {config.image_size} pixels, read out by
  {config.image_tokens} learned queries into {config.image_tokens} tokens; trained to name attributes,
  {config.vision_steps:,} steps of {config.vision_batch}.
- **Language model**: Qwen2, {config.text_layers} layers of {config.text_width}, byte-level BPE vocabulary of its own;
  {config.language_steps:,} steps of {config.language_batch} conversations on features of the frozen tower, with
  {config.drill_batch} bare replies beside them that practise the comparison of words. A reply says what is seen,
  compares, and concludes. {config.noisy_share:.0%} of the questions with three or four representatives have a wrong
  one, {config.paraphrase_share:.0%} of all a reworded instruction. 1 to 4 representatives a side; more is untested.
- **Embedding head**: bias-free LayerNorm and a projection to {config.embedding_width}, at the state of `<embedding>`;
  everything else frozen; BCE over all pairs of a batch.
- Lengths were changed while these weights were made (vision from 2,400 steps to 1,600 to 1,200, language from 1,300 to
  500 to 1,000), so their learning rates fell a little differently from what the same command gives anew.
- The renderer was written with photographs of cards in view, and the tower chosen by how well it reads them: they were
  looked at and measured on, never trained on.
- Stored in bfloat16 (batch norm and head in float32), computed in float32. Decoding is greedy at every temperature.

Licence: Apache-2.0, as the code{" and the published weights" if config.tower_trunk != "residual" else ""}.
"""


def _trunk(config: MiniConfig) -> str:
    if config.tower_trunk == "residual":
        return "residual convolutions from nothing"
    return (
        f"EfficientNet-Lite0 (arXiv 1905.11946) from published ImageNet weights\n"
        f"  (`{PACKAGE}`, Apache-2.0), its first {config.vision_frozen} blocks left as they were"
    )
