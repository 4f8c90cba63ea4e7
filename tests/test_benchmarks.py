"""Every benchmark runs, at toy size; what it measures is looked at elsewhere (docs/benchmarks.md)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import assessments, graph, lockstep, machine, report, search, utilisation, web
from benchmarks.endpoint import number_of, picture, serving
from benchmarks.evidence import BAR
from serving.client import Endpoint
from serving.images import encode_image, image_part, text_part

TOY = replace(BAR, items=40, classes=4, error=0.0, stray=0.0, noise=0.6)


@pytest.fixture(scope="module")
def figures() -> dict:
    cpu = [assessments.measure(policy, "sqlite", 40, 0.0) for policy in ("evidence", "paper")]
    pair = [graph.measure(what, 200, 16) for what in ("product", "auto")]
    return {
        "machine": machine.machine(),
        "search": {"world": vars(TOY), "most": search.MOST, "rows": search.measure(TOY, 1)},
        "utilisation": {
            "latency": 0.01, "in_flight": 32, "picture_kb": 5,
            "rows": [utilisation.one_component(TOY, 0.01), *utilisation.beside(TOY, 0.001)],
        },
        "assessments": {"in_flight": 32, "error": 0.03, "seed": 1, "rows": cpu},
        "client": {"calls": 1, "latency": 0.0, "clients": []},
        "graph": pair,
    }  # fmt: skip


def test_all_rivals_are_asked_and_scored(figures: dict) -> None:
    rows = {row["method"]: row for row in figures["search"]["rows"]}
    assert list(rows) == list(report.METHODS)
    assert rows["evidence"]["nmi"] == rows["paper"]["nmi"] == 1
    assert all(0 < rows[m]["questions_per_item"] < search.MOST for m in ("evidence", "paper", "lock-step listing"))
    assert rows["K-means"]["questions_per_item"] == rows["HDBSCAN"]["questions_per_item"] == 0


def test_the_endpoint_adds_up_its_answers(figures: dict) -> None:
    for row in figures["utilisation"]["rows"]:
        assert row["questions"] > 0 and row["answer_seconds"] > 0 and row["ratio"] > 0
        assert row["nmi"] == 1 or "listing" in row["what"]


def test_the_parts_of_an_assessment_are_all_of_it(figures: dict) -> None:
    for row in figures["assessments"]["rows"]:
        assert sum(row["parts_ms"].values()) == pytest.approx(row["cpu_ms"], abs=0.01)
        assert row["assessments"] > 30 and row["bytes"] > 0 and row["bare_cpu_ms"] > 0


def test_the_report_is_written(figures: dict, tmp_path: Path) -> None:
    report.write(figures, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "$" not in page
    assert {p.name for p in (tmp_path / "images").iterdir()} == {
        f"bench-{name}.png" for name in ("search", "utilisation", "cpu", "bytes", "graph")
    }
    assert all(f"images/{p.name}" in page for p in (tmp_path / "images").iterdir())


def test_pictures_show_their_number_to_the_endpoint_as_texts_do() -> None:
    async def embedded(url: str, part: dict) -> np.ndarray:
        async with Endpoint(url, model=None, api_key=None) as endpoint:
            said = [{"role": "user", "content": [{"type": "text", "text": "Describe."}, part]}]
            return (await endpoint.embed_messages(said, key="k")).values

    with serving(TOY, 1) as endpoint:
        _, embeddings = TOY.collection(1)
        for part in (text_part("item 37"), image_part(encode_image(picture(37)))):
            assert (asyncio.run(embedded(endpoint.url, part)) == embeddings[37]).all()
    assert number_of("row 38") == number_of("00037.png") == 37


def test_the_listing_merges_the_nearest_neighbours_and_takes_no_for_an_answer() -> None:
    """Clusters 0-1, 2-3 and 4-5 in a row: the first two are one class, the third another."""
    edges = {(0, 1): 9, (2, 3): 9, (4, 5): 9, (1, 2): 5, (3, 4): 4}
    rows = [[(b if a == v else a, w) for (a, b), w in edges.items() if v in (a, b)] for v in range(6)]
    asked: list[tuple[str, ...]] = []

    class Truth(lockstep.Asked):
        async def all(self, questions: list) -> list:
            self.rounds += 1
            self.questions += len(questions)
            shown = [tuple(item for _, item in q.items) for q in questions]
            asked.extend(shown)
            return [lockstep.Conclusion.YES if "4" not in s else lockstep.Conclusion.NO for s in shown]

    truth = Truth(None, search.choose_prompt_set("kind", None), most=100)  # type: ignore[arg-type]
    merged = asyncio.run(lockstep._merge(rows, [[0, 1], [2, 3], [4, 5]], [str(v) for v in range(6)], truth))
    assert merged == [[0, 1, 2, 3], [4, 5]]
    assert asked == [("0", "1", "2", "3"), ("2", "3", "4", "5"), ("0", "1", "2", "4", "5")]


def test_the_page_is_asked_of_a_server_of_its_own(tmp_path: Path) -> None:
    size = web.Size(items=12, largest=8, memberships=20)
    told = web.measure(web.write(tmp_path, size), size, rounds=1)
    assert {row["page"] for row in told["pages"]} == set(web.pages(size))
    assert all(row["kB"] > 0 and row["first_ms"] > 0 for row in told["pages"]) and told["ready_s"] > 0
