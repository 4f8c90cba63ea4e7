"""`partita train` from the command line: a tiny random LLaVA-OneVision, labels or an HTTP endpoint as its teacher."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from safetensors import safe_open
from safetensors.torch import load_file

from tests.command_line import ROOT
from tests.serving import tiny
from tests.training.lessons import image
from tests.truth import Truth, numbers, serving
from tests.warm import Warm, warmed

SETTINGS = {
    "epochs": 2, "pairs": 8, "nodes": 12, "merges": 6, "held_out_pairs": 6, "batch": 8, "micro_batch": 4, "rank": 4,
    "rate": 2e-3, "gradient_checkpointing": False, "patience": 5, "checkpoint_seconds": 0,
}  # fmt: skip
FEW = 24
KEPT = ("order.json", "labels.json", "held_out_items.json", "held_out.json", "epoch.json")


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """Every command here needs torch."""
    with warmed(ROOT, "training.learner", "training.crew", "training.course", "peft", "matplotlib.pyplot") as process:
        yield process


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers in the right form and knows nothing."""
    folder = tmp_path_factory.mktemp("base")
    return tiny.taught(folder / "taught", tiny.published(folder / "untaught", spread=0.03))


@pytest.fixture
def world(tmp_path: Path, base: Path) -> Path:
    """Coloured patches with labels, settings for a training of seconds, and the base, all in one folder."""
    (tmp_path / "patches").mkdir()
    with (tmp_path / "patches" / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "color"])
        for number in range(FEW):
            image(str(number)).save(tmp_path / "patches" / f"{number:02}.png")
            writer.writerow([f"{number:02}.png", ("red", "green", "blue")[number % 3]])
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(SETTINGS))
    (tmp_path / "base").symlink_to(base)
    return tmp_path


def words(what: str, out: str = "out", **more: object) -> list[object]:
    told = {"by": "color", "teacher": "patches/labels.csv", "base": "base", "out": out, "config": "few.yaml"} | more
    return ["train", what, "patches", *(part for name, value in told.items() for part in (f"--{name}", value))]


def test_both_from_labels_to_a_session_that_says_supervised(cli, world):
    done = cli(*words("both"), "--json")
    assert done.code == 0, done.err
    assert done.json["epochs"] == 2 and done.json["best"] in (1, 2) and done.json["supervised"] is True
    assert {"caption", "alike", "assessment", "auc", "edges", "verdicts"} <= set(done.json["measured"])
    assert "epoch 1 of 2" in done.err and "supervised" in done.err
    assert done.err.count("before: caption") == 1 and set(done.json["before"]) == set(done.json["measured"])
    training = world / "out" / "training"
    log = [json.loads(line) for line in (training / "log.jsonl").read_text().splitlines()]
    measured = [row for row in log if "held_out" in row]
    assert [row["epoch"] for row in measured] == [-1, 0, 1]  # the base is measured first
    marked = [", best" in line or ", kept" in line for line in done.err.splitlines() if " of 2" in line]
    assert marked == [row["best"] for row in measured[1:]] and done.json["gained"] == (", best" in done.err)
    first, last = (next(r for r in rows if "assessment" in r) for rows in (log, log[::-1]))
    assert last["assessment"] < first["assessment"]
    assert (training / "curves.png").stat().st_size > 10_000 and list((training / "tensorboard").iterdir())
    walks = [json.loads(line) for line in (training / "traversals.jsonl").read_text().splitlines()]
    assert [walk["epoch"] for walk in walks] == [None, 0, 1]
    assert all(walk["no"] + walk["strangers"] for walk in walks[1:])

    about = json.loads((world / "out" / "partita.json").read_text())
    assert about["name"].startswith("out-supervised-") and about["threshold"] == 0.6
    exported = cli("serve", "export", "out", "exported", "--name", "mine")
    assert exported.code == 0, exported.err
    assert "learnt from labels" in exported.err and "mine-supervised" in exported.out
    listed = [json.loads(line) for line in cli("sessions", "--json").out.splitlines()]
    taught = next(row["session"] for row in listed if row["policy"] == "teacher")
    spent = cli("spend", taught, "--json")
    assert spent.code == 0 and json.loads(spent.out)["total"]["calls"] > 30

    asked = cli("run", "patches", "--by", "color", "--model", "out", "--session", "s", "--max-calls", 40, "--json")
    assert asked.code in (0, 3), asked.err
    assert asked.json["supervised"] is True
    again = cli(*words("both"), "--json")
    assert again.code == 0 and again.json == done.json  # it is done: nothing is learnt anew


def until(out: Path, steps: int) -> None:
    """Wait until a training has told of so many steps."""
    log, began = out / "training" / "log.jsonl", time.monotonic()
    while not log.exists() or sum("rate" in line for line in log.read_text().splitlines()) < steps:
        assert time.monotonic() - began < 100
        time.sleep(0.02)


def test_killed_it_goes_on_bit_for_bit(cli, world):
    whole = cli(*words("both", "whole"))
    assert whole.code == 0, whole.err
    for steps in (1, 4, 7):
        with cli.start(*words("both", "cut")) as process:
            until(world / "cut", steps)
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
    done = cli(*words("both", "cut"))
    assert done.code == 0, done.err
    for name in ("adapter_model.safetensors", "head.safetensors"):
        one, other = load_file(world / "whole" / name), load_file(world / "cut" / name)
        assert one.keys() == other.keys() and all(one[part].equal(other[part]) for part in one), name
    states = [world / out / "training" / "state.safetensors" for out in ("whole", "cut")]
    with safe_open(states[0], "pt") as a, safe_open(states[1], "pt") as b:
        assert all(a.get_tensor(name).equal(b.get_tensor(name)) for name in a.keys())  # noqa: SIM118


def test_what_is_held_out_stays_held_out_when_the_collection_changes(cli, world):
    images, training = world / "patches", world / "out" / "training"
    # So many that the last is drawn after the collection has changed, however far it comes before it is killed.
    (world / "few.yaml").write_text(yaml.safe_dump(SETTINGS | {"epochs": 4, "patience": 4}))
    with cli.start(*words("embedder")) as process:
        until(world / "out", 1)
        process.send_signal(signal.SIGKILL)
    held = json.loads((training / "held_out_items.json").read_text())
    gone = next(path for path in images.glob("*.png") if hashlib.sha256(path.read_bytes()).hexdigest() == held[0])
    content = gone.read_bytes()
    gone.unlink()
    refused = cli(*words("embedder"))
    assert refused.code == 2 and "Traceback" not in refused.err, refused.err
    assert f"{gone.name}, which this training uses, is gone" in refused.err
    gone.write_bytes(content)
    for number in range(FEW, FEW + 6):
        image(str(number)).save(images / f"{number:02}.png")
        with (images / "labels.csv").open("a") as file:
            file.write(f"{number:02}.png,red\n")
    done = cli(*words("embedder"))
    assert done.code == 0, done.err
    assert json.loads((training / "held_out_items.json").read_text()) == held
    learnt = (training / "epoch.json").read_text()
    assert not [item for item in held if item in learnt]
    new = [hashlib.sha256((images / f"{number}.png").read_bytes()).hexdigest() for number in range(FEW, FEW + 6)]
    assert any(item in learnt for item in new)


def test_what_is_in_the_folder_is_looked_at_before_it_is_believed(cli, world):
    training, labels = world / "out" / "training", world / "patches" / "labels.csv"
    with cli.start(*words("both")) as process:
        until(world / "out", 1)
        taken = cli(*words("both"), "--db", f"sqlite:///{world}/other.db")
        assert taken.code == 2 and "another process trains into out now" in taken.err
        process.send_signal(signal.SIGKILL)
    said = labels.read_text()
    labels.write_text(said.replace("00.png,red", "00.png,blue"))
    changed = cli(*words("both"))
    assert changed.code == 2 and "labels of 1 items have changed" in changed.err, changed.err
    assert "that of 00.png from 'red' to 'blue'" in changed.err
    labels.write_text(said)
    with (training / "log.jsonl").open("ab") as file:
        file.write(b'\xff\xfe\n{"held_out": 1, "step": 1, "epoch": 0}\n{"step": "x", "epoch": 0}\n')
    kept = {name: (training / name).read_bytes() for name in KEPT}
    for name, damaged in (
        ("order.json", kept["order.json"][:99]),
        ("labels.json", b"[1]"),
        ("held_out_items.json", b"[1]"),
        ("held_out.json", kept["held_out.json"][:999]),
        ("epoch.json", b"\xff" + kept["epoch.json"]),
    ):
        (training / name).write_bytes(damaged)
        refused = cli(*words("both"))
        assert refused.code == 2 and "Traceback" not in refused.err, (name, refused.err)
        assert name in refused.err and "another --out" in refused.err
        (training / name).write_bytes(kept[name])
    (training / "order.json").write_bytes(kept["order.json"].replace(b'"recipe": {', b'"recipe": [], "_": {'))
    other = cli(*words("both"))
    assert other.code == 2 and "another recipe" in other.err
    (training / "order.json").write_bytes(kept["order.json"])
    done = cli(*words("both"))
    assert done.code == 0, done.err
    log = [json.loads(line) for line in (training / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log if "held_out" in line] == [-1, 0, 1]  # the base, and both epochs
    assert not (training / "lock").exists()


def test_an_order_that_came_to_nothing_makes_room(cli, world):
    class Closed(Truth):
        async def chat(self, request: web.Request) -> web.Response:
            return web.json_response({"error": {"message": "no such key"}}, status=401)

    with serving(Closed(numbers(FEW, 3))) as truth:
        truth.write(world / "c")
        asked = ("train", "both", "c", "--by", "kind", "--base", "base", "--config", "few.yaml", "--out", "out")
        assert cli(*asked, "--teacher", truth.url).code == 4
        assert (world / "out" / "training" / "order.json").exists()
        done = cli(*asked, "--teacher", "c/labels.csv", "--column", "kind")
        assert done.code == 0, done.err


def test_missing_libraries_say_what_to_install(cli, world):
    (world / "blocked").mkdir()
    (world / "blocked" / "sitecustomize.py").write_text("import sys\nsys.modules['accelerate'] = None\n")
    refused = cli(*words("both"), PYTHONPATH=f"{world / 'blocked'}:{ROOT}")
    assert refused.code == 2 and "training needs accelerate: pip install 'partita[train]'" in refused.err


def test_ctrl_c_pauses_and_the_same_command_goes_on(cli, world):
    (world / "few.yaml").write_text(yaml.safe_dump(SETTINGS | {"batch": 1}))
    with cli.start(*words("embedder")) as process:
        until(world / "out", 2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 3 and "goes on from here" in err
    done = cli(*words("embedder"))
    assert done.code == 0 and "epoch 2 of 2" in done.err


def test_an_endpoint_teaches_and_is_asked_nothing_twice(cli, world):
    with serving(Truth(numbers(FEW, 3))) as truth:
        truth.write(world / "c")
        asked = ("train", "both", "c", "--by", "kind", "--teacher", truth.url, "--base", "base", "--config", "few.yaml")
        seen = cli(*asked, "--out", "out", "--estimate", "--json")
        assert seen.code == 0 and not truth.asked and not seen.json["had"]
        paused = cli(*asked, "--out", "out", "--max-calls", 20)
        assert paused.code == 3 and len(truth.asked) == 20, paused.err
        known = cli(*asked, "--estimate", "--json").json
        assert (known["had"], known["measured"]) == (20, 20)
        assert known["calls"]["total"]["high"] == seen.json["calls"]["total"]["high"]
        assert known["calls"]["total"]["likely"] < seen.json["calls"]["total"]["likely"]
        done = cli(*asked, "--out", "out")
        assert done.code == 0, done.err
        total = known["calls"]["total"]  # said alike before it begins
        assert f"expected: {total['likely']} ({total['low']} to {total['high']}) calls" in done.err
        made = len(truth.asked)
        assert 20 < made <= seen.json["calls"]["total"]["high"]
        keys = [key for _, key in truth.asked]
        assert len(set(keys)) == len(keys)
        assert json.loads((world / "out" / "partita.json").read_text())["name"].startswith("out-")
        assert "supervised" not in (world / "out" / "partita.json").read_text() + done.out
        other = [*("agent" if word == "both" else word for word in asked), "--seed", "5", "--out", "agent"]
        most = cli(*other, "--estimate", "--json").json["calls"]["total"]["high"]
        agent = cli(*other)
        assert agent.code == 0 and len(truth.asked) - made <= most
        repeated = {key for _, key in truth.asked[made:]} & set(keys)
        assert not repeated


@pytest.mark.parametrize("learnt_from_labels", ["base", "teacher"])
def test_what_is_taught_by_or_begins_with_a_supervised_model_says_so(cli, world, base, learnt_from_labels):
    (world / "few.yaml").write_text(yaml.safe_dump(SETTINGS | {"epochs": 1}))
    shutil.copytree(base, world / "old-supervised-1a")
    names = {"base": ("truth", "old-supervised-1a"), "teacher": ("old-supervised-1a", "base")}
    model, begun = names[learnt_from_labels]
    with serving(Truth(numbers(FEW, 3), names=(model,))) as truth:
        truth.write(world / "c")
        asked = ("train", "embedder", "c", "--by", "kind", "--teacher", truth.url, "--base", begun, "--out", "out")
        done = cli(*asked, "--config", "few.yaml")
    assert done.code == 0, done.err
    assert "supervised: the model has learnt from labels" in done.out
    assert json.loads((world / "out" / "partita.json").read_text())["name"].startswith("out-supervised-")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"teacher": "nobody.csv"}, "no such file"),
        ({"column": "shape"}, "no column 'shape'"),
        ({"base": "nowhere"}, "--base nowhere: there is no such folder"),
        ({"config": "nowhere.yaml"}, "no such file"),
        ({"out": "patches"}, "lies in the collection"),
        ({"out": "patches/model"}, "lies in the collection"),
        ({"out": "base"}, "exists and holds no training"),
        ({"by": " "}, "the criterion is empty"),
        ({"teacher": "http://me:secret@127.0.0.1:9/v1"}, "--teacher: the URL holds a user name or password"),
    ],
)
def test_wrong_use_says_what_to_do(cli, world, more, told):
    refused = cli(*words("both", **more))
    assert refused.code == 2 and told in refused.err and "Traceback" not in refused.err, refused.err
    assert not (world / "out").exists()  # nothing was begun: the right command may take the same folder
    if more.keys() & {"teacher", "column", "by"}:
        foreseen = cli(*words("both", **more), "--estimate")
        assert (foreseen.code, foreseen.err.splitlines()[-1]) == (refused.code, refused.err.splitlines()[-1])


def test_an_estimate_reads_labels_as_the_training_does(cli, world):
    labels = world / "patches" / "labels.csv"
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join(lines[:13]))
    seen = cli(*words("both"), "--estimate", "--json")
    assert seen.code == 0 and seen.json["calls"]["describe"]["high"] == 12
    told = cli(*words("both"), "--estimate")
    assert "items without a label, left out: 12" in told.out and "supervised" in told.out
    labels.write_text("\n".join(lines[:5]))
    refused = [cli(*words("both"), *more) for more in ([], ["--estimate"])]
    assert [done.code for done in refused] == [2, 2]
    assert all("4 items are too few to train on" in done.err for done in refused)


def test_an_estimate_tells_of_an_assumed_price_and_of_limits_that_may_be_passed(cli, world):
    more = {"teacher": "https://api.example.com/v1", "teacher-model": "nobodys", "max-calls": 5, "max-cost": 0.01}
    told = cli(*words("both", **more), "--estimate")
    assert told.code == 0, told.err
    assert "no price of nobodys is known: assumed" in told.out
    assert "--max-calls and --max-cost may pause it before its end" in told.out
    assert not (world / "partita.db").exists()


def test_settings_that_are_none_and_another_training_in_the_folder(cli, world):
    (world / "few.yaml").write_text("batches: 3\n")
    refused = cli(*words("both"))
    assert refused.code == 2 and "batches: is no setting" in refused.err
    shown = cli("train", "both", "--show-config", "--base", "base")
    assert yaml.safe_load(shown.out)["rank"] == 64
    shown = cli("train", "agent", "--show-config", "--db", "postgresql://me:secret@host/x")
    assert "secret" not in shown.out and "//host/x" in shown.out
    (world / "few.yaml").write_text(yaml.safe_dump(SETTINGS | {"epochs": 1}))
    assert cli(*words("agent")).code == 0
    other = cli(*words("both"))
    assert other.code == 2 and "another what" in other.err
    (world / "few.yaml").write_text(yaml.safe_dump(SETTINGS | {"epochs": 1, "rate": 1e-3}))
    other = cli(*words("agent"))
    assert other.code == 2 and "another recipe (rate)" in other.err
    (world / "few.yaml").write_text(yaml.safe_dump(SETTINGS | {"epochs": 1, "micro_batch": 2, "patience": 2}))
    assert cli(*words("agent")).code == 0  # what is said where memory does not suffice may be done
    order = {"what": "both", "collection": "patches", "by": "color", "teacher": "patches/labels.csv", "out": "out"}
    (world / "order.yaml").write_text(yaml.safe_dump(order | {"base": "base"} | SETTINGS | {"epochs": 1, "rate": 1e-3}))
    other = cli("train", "--config", "order.yaml")  # read as the words would be, another recipe and all
    assert other.code == 2 and "another what" in other.err
    shown = cli("train", "agent", "--config", "order.yaml", "--out", "elsewhere", "--show-config")  # words go first
    told = yaml.safe_load(shown.out)
    assert [told[name] for name in ("what", "out", "by", "rate")] == ["agent", "elsewhere", "color", 1e-3]
    for name, value, says in (("by", ["color"], "by: must be a text"), ("rate", float("inf"), "rate: ")):
        (world / "odd.yaml").write_text(yaml.safe_dump({name: value}))
        odd = cli(*words("both", "odd", config="odd.yaml"))
        assert odd.code == 2 and f"odd.yaml: {says}" in odd.err and not (world / "odd").exists(), odd.err
    lacks = cli("train", "both", "patches")
    assert lacks.code == 2 and "--by, --teacher, --out" in lacks.err
