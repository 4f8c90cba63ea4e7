"""Bad input gets one clear line, a way out, exit 2 (4 for the endpoint), and loses nothing."""

from __future__ import annotations

import sqlite3

import pytest

from storage.database import open_database
from tests.partita.test_sessions import run
from tests.truth import Truth, draw, numbers, serving


@pytest.fixture
def truth():
    with serving(Truth(numbers(12, 3))) as t:
        yield t


def refused(done, code: int, *says: str) -> None:
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    for words in says:
        assert words in lines[-1], done.err


def test_collections(cli, truth, tmp_path):
    refused(cli(*run(tmp_path / "nowhere", truth)), 2, "nowhere", "folder of images")
    (tmp_path / "empty").mkdir()
    refused(cli(*run(tmp_path / "empty", truth)), 2, "empty")
    (tmp_path / "one").mkdir()
    draw(1).save(tmp_path / "one" / "a.png")
    refused(cli(*run(tmp_path / "one", truth)), 2, "two")
    (tmp_path / "table.csv").write_text("name,size\na,1\n")
    refused(cli(*run(tmp_path / "table.csv", truth)), 2, "file", "text", "name")
    assert not truth.asked
    assert "no sessions" in cli("sessions").out


def test_bad_images_are_listed_and_the_rest_is_clustered(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    (folder / "zero.png").touch()
    # A PNG that says it is 20,000 x 20,000 and holds next to nothing.
    from PIL import Image

    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    (folder / "text.jpg").write_text("hello")
    done = cli(*run(folder, truth))
    assert done.code == 0, done.err
    assert {f["item"] for f in done.json["failed_items"]} == {"zero.png", "huge.png", "text.jpg"}
    assert all(f["why"] for f in done.json["failed_items"])
    assert len(done.json["clusters"]) == 3


def test_sessions_and_prompts(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    for verb in ("resume", "show", "trace"):
        refused(cli(verb, "nobody"), 2, "nobody", "partita run")
    refused(cli(*run(folder, truth), "--prompts", "nonesuch"), 2, "nonesuch")
    refused(cli(*run(folder, truth), "--prompts", tmp_path / "nope.yaml"), 2, "nope.yaml")
    (tmp_path / "bad.yaml").write_text("name: bad\ncriterion: x\ndescribe: what is $colour\n")
    refused(cli(*run(folder, truth), "--prompts", tmp_path / "bad.yaml"), 2, "$colour")
    refused(cli("prompts", "check", tmp_path / "bad.yaml"), 2, "$colour")
    assert not truth.asked
    assert cli(*run(folder, truth)).code == 0
    asked = len(truth.asked)
    refused(cli(*run(folder, truth)), 2, "'s'", "resume")
    assert len(truth.asked) == asked
    refused(cli(*run(folder, truth, "a/b")), 2, "--session")
    refused(cli("score", "s", "--labels", folder / "labels.csv", "--column", "hue"), 2, "hue", "kind")
    (tmp_path / "other.csv").write_text("name,kind\na,1\n")
    refused(cli("score", "s", "--labels", tmp_path / "other.csv", "--column", "kind"), 2, "no `file` column", "name")
    refused(cli("export", "s", "--to", tmp_path / "x.xlsx"), 2, ".csv")
    refused(cli("export", "s", "--to", folder), 2, "not empty")
    refused(cli("trace", "s", "--cluster", 99), 2, "99")
    refused(cli("show", "s", "--picture", tmp_path / "a.txt"), 2, ".png")
    again = cli("resume", "s")
    assert again.code == 0 and "was done already" in again.err and "'s'" in again.err


def test_options(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    refused(cli(*run(folder, truth), "--concurrency", 0), 2, "--concurrency 0: give a number from 1 to 4096")
    refused(cli(*run(folder, truth), "--candidates", 65), 2, "--candidates 65: give a number from 1 to 64")
    refused(cli(*run(folder, truth), "--seed", -1), 2, "--seed -1: give a number from 0 to 2147483647")
    refused(cli(*run(folder, truth), "--request-timeout", 0), 2, "--request-timeout 0.0: give a number above 0")
    refused(cli(*run(folder, truth), "--threshold", "lots"), 2, "--threshold")
    refused(cli(*run(folder, truth), "--threshold", "1.5"), 2, "--threshold 1.5: give a number between 0 and 1")
    refused(cli(*run(folder, truth), "--picture", tmp_path / "a.txt"), 2, "--picture", ".png")
    refused(cli("run", folder, "--by", " ", "--endpoint", truth.url), 2, "--by")
    refused(cli("run", folder, "--by", "kind", "--endpoint", "ftp://x"), 2, "--endpoint")
    refused(cli("run", folder, "--by", "kind", "--endpoint", "http://me:secret@127.0.0.1/v1"), 2, "PARTITA_API_KEY")
    refused(cli("run", folder, "--by", "the mood of the sky"), 2, "suit", "--endpoint")
    assert cli("run", folder, "--nonsense").code == 2
    assert not truth.asked


def test_databases(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    refused(cli(*run(folder, truth), "--db", "sqlite:////proc/none/x.db"), 2)
    refused(cli(*run(folder, truth), "--db", "mysql://x/y"), 2)
    (tmp_path / "words.db").write_text("this is no database, but it is long enough to be taken for one" * 40)
    refused(cli(*run(folder, truth), "--db", f"sqlite:///{tmp_path}/words.db"), 2)
    refused(cli("sessions", "--db", "postgresql://nobody:hushhush@127.0.0.1:1/none"), 2)
    assert "hushhush" not in cli("sessions", "--db", "postgresql://nobody:hushhush@127.0.0.1:1/none").err
    assert f"no sessions yet in sqlite:///{tmp_path}/partita.db" in cli("sessions").out
    for words in (
        ["show", "s"],
        ["resume", "s"],
        ["compare", "s", "t"],
        ["pause", "s"],
        ["fork", "s", "--prompts", "suit"],
    ):
        refused(cli(*words), 2, "has none yet")
    assert not (tmp_path / "partita.db").exists()  # to look for something makes nothing
    open_database(cli.db).close()
    with sqlite3.connect(tmp_path / "partita.db") as connection:
        connection.execute("UPDATE partita_version SET version_num = 'zz99'")
    connection.close()
    refused(cli("sessions"), 2, "newer")
    assert not truth.asked


def test_endpoints(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    words = list(run(folder, truth))
    here = words.index(truth.url)
    refused(cli(*words[:here], "http://127.0.0.1:1/v1", *words[here + 1 :]), 4, "127.0.0.1:1")
    refused(cli(*words, "--model", "gpt-9"), 4, "gpt-9", "truth")
    truth.key = "right"
    refused(cli(*words, PARTITA_API_KEY="canary-0b5"), 4, "PARTITA_API_KEY")
    assert "canary-0b5" not in cli(*words, PARTITA_API_KEY="canary-0b5").err
    truth.key = None
    assert "no sessions" in cli("sessions").out
    truth.fault = lambda n: "html"
    refused(cli(*words), 4, "HTML")
    truth.fault = lambda n: None
    done = cli("resume", "s", "--json")
    assert done.code == 0 and len(done.json["clusters"]) == 3


def test_a_model_that_never_concludes(cli, tmp_path):
    with serving(Truth(numbers(30, 2))) as truth:
        truth.fault = lambda n: "vague"
        refused(cli(*run(truth.write(tmp_path / "c"), truth)), 4, "CONCLUSION")
        truth.fault = lambda n: None
        done = cli("resume", "s", "--json")
        assert done.code == 0 and len(done.json["clusters"]) == 2


def test_an_item_that_the_endpoint_rejects_stands_alone(cli, tmp_path):
    with serving(Truth(numbers(24, 3))) as truth:
        folder = truth.write(tmp_path / "c")
        truth.rejects = next(iter(truth.kinds))
        done = cli(*run(folder, truth))
        assert done.code == 0, done.err
        assert sorted(c["size"] for c in done.json["clusters"])[0] == 1 and len(done.json["clusters"]) == 4
        assert ["images/0000.png"] in [c["items"] for c in done.json["clusters"]]
        assert "stand alone" in done.err
        truth.rejects = None
        truth.fault = lambda n: "400"
        refused(cli(*run(folder, truth, "t")), 4, "as asked: 400")


def test_outputs_that_go_wrong(cli, truth, tmp_path):
    import subprocess

    folder = truth.write(tmp_path / "c")
    words = list(run(folder, truth))
    words[words.index("kind")] = "[/b] \x07"
    assert cli(*words[:-1]).code == 0
    refused(cli(*run(folder, truth, "t"), "--picture", tmp_path / "no" / "p.png"), 2, "--picture")
    full = cli.start("trace", "s")
    assert full.stdout is not None
    full.stdout.read(1)
    full.stdout.close()
    assert full.wait(60) == 0
    assert full.stderr is not None and full.stderr.read() == ""
    full.stderr.close()
    (tmp_path / "ex").mkdir()
    (tmp_path / "ex" / "mine.txt").touch()
    refused(cli("examples", tmp_path / "ex", "--count", 2), 2, "ex")
    (tmp_path / "dotted.d").mkdir()
    assert cli("export", "s", "--to", tmp_path / "dotted.d").code == 0
    assert len(list((tmp_path / "dotted.d").glob("*/*.png"))) == 12
    assert (
        subprocess.run(["ls", "-A", tmp_path], capture_output=True, text=True, check=True).stdout.count(".partita-")
        == 0
    )


def test_signals_while_stopping(cli, tmp_path):
    """Ctrl-C while the session is stopping already, for want of budget, with calls that hang."""
    import signal
    import time

    with serving(Truth(numbers(40, 3))) as truth:
        truth.fault = lambda n: "silence" if n > 20 else None
        process = cli.start(*run(truth.write(tmp_path / "c"), truth), "--max-calls", 30)
        while truth.served < 30 and process.poll() is None:
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 3 and "Traceback" not in err, err


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signals_in_a_row_end_in_one_exit_code(cli, tmp_path, name):
    import signal
    import time

    with serving(Truth(numbers(60, 3), latency=0.05)) as truth:
        process = cli.start(*run(truth.write(tmp_path / "c"), truth))
        while len(truth.asked) < 30 and process.poll() is None:
            time.sleep(0.02)
        for _ in range(60):  # until it has ended
            if process.poll() is not None:
                break
            process.send_signal(getattr(signal, name))
            time.sleep(0.1)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 3 and "Traceback" not in err, err


def test_embeddings_that_are_no_use(cli, tmp_path):
    with serving(Truth(numbers(12, 3))) as truth:
        folder, right = truth.write(tmp_path / "c"), truth.vector
        truth.vector = lambda number: [0.0] * 32
        refused(cli(*run(folder, truth)), 4, "zeros", "--embed-model")
        truth.vector = lambda number: right(number)[: 31 + number % 2]
        refused(cli(*run(folder, truth, "t"), "--concurrency", 1), 4, "numbers, after one of", "--embed-model whose")
        truth.vector = right
        stuck = cli("resume", "t")
        assert stuck.code == 0 or "different lengths" in stuck.err
