"""Two sessions side by side: the measures, the matching, the matrix, and the command."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from partita import Session
from partita.comparison import Comparison, Side, compare, match
from partita.evaluation import agreement
from partita.result import ClusterResult, Result
from partita.verbs import cli as cli_of_partita
from storage.database import open_database
from storage.errors import UsageError
from tests.partita.made import make_session
from tests.truth import draw

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=60)
PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=60)


def side(labels: Sequence[int], name: str = "s") -> Side:
    """A session whose items 0, 1, … have these labels; its clusters are numbered as people see them."""
    members: dict[int, list[str]] = {}
    for item, label in enumerate(labels):
        members.setdefault(label, []).append(str(item))
    sized = sorted(members.items(), key=lambda pair: -len(pair[1]))
    clusters = [ClusterResult(i, f"label {label}", len(items), items) for i, (label, items) in enumerate(sized, 1)]
    contents = {str(item): f"content {item}" for item in range(len(labels))}
    return Side(Result(name, "done", "kind", "evidence", len(labels), clusters), contents, "hash")


def compared(pairs: Sequence[tuple[int, int]]) -> Comparison:
    return compare(side([a for a, _ in pairs], "a"), side([b for _, b in pairs], "b"))


# -- the measures and the matching ------------------------------------------------------------------------------------


@given(PAIRS)
@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_the_measures_are_scikit_learns_and_symmetric(pairs):
    a, b = zip(*pairs, strict=True)
    nmi, ari = agreement(Counter(pairs))
    assert nmi == pytest.approx(normalized_mutual_info_score(a, b), abs=1e-9)
    assert ari == pytest.approx(adjusted_rand_score(a, b), abs=1e-9)
    assert (nmi, ari) == agreement(Counter((b, a) for a, b in pairs))


@given(LABELS, st.permutations(range(7)))
def test_the_same_partition_under_other_numbers_agrees_wholly(labels, permutation):
    said = compared([(label, permutation[label]) for label in labels])
    assert said.nmi == said.ari == 1 and said.agreeing == said.items == len(labels) and not said.differences
    matrix = said.matrix()
    assert len(matrix.rows) == len(matrix.columns) == matrix.matched == len(set(labels))
    assert all(bool(n) == (row == column) for row, line in enumerate(matrix.counts) for column, n in enumerate(line))


@given(PAIRS)
def test_no_matching_has_more_in_it(pairs):
    counts = Counter(pairs)
    found = match(counts)
    assert len(set(found.values())) == len(found) and all(counts[pair] for pair in found.items())
    rows, columns = sorted({a for a, _ in pairs})[:4], sorted({b for _, b in pairs})[:4]
    few = {(a, b): n for (a, b), n in counts.items() if a in rows and b in columns}
    if few:
        padded = [*columns, *[-1] * len(rows)]
        best = max(
            sum(few.get(pair, 0) for pair in zip(rows, order, strict=True))
            for order in itertools.permutations(padded, len(rows))
        )
        assert sum(few[pair] for pair in match(few).items()) == best


@given(PAIRS, st.integers(1, 8), st.integers(1, 8))
def test_the_matrix_holds_every_item_however_small_it_is(pairs, rows, columns):
    said = compared(pairs)
    matrix = said.matrix(rows, columns)
    assert sum(map(sum, matrix.counts)) == len(pairs)
    assert len(matrix.rows) <= rows and len(matrix.columns) <= columns
    assert len(matrix.rows) + matrix.other_rows == len({a for a, _ in pairs})
    assert len(matrix.columns) + matrix.other_columns == len({b for _, b in pairs})
    shown = zip(matrix.rows[: matrix.matched], matrix.columns[: matrix.matched], strict=True)
    assert all(said.matching[a.id] == b.id for a, b in shown)
    for c, line in zip(matrix.rows, matrix.counts, strict=False):
        assert sum(line) == c.size
    back = compared([(b, a) for a, b in pairs])
    assert (back.nmi, back.ari, back.agreeing) == (said.nmi, said.ari, said.agreeing)


@given(PAIRS)
def test_every_item_is_in_the_cell_of_its_two_clusters(pairs):
    said = compared(pairs)
    for cell in said.cells:
        assert set(cell.items) == set(cell.a.items) & set(cell.b.items) and cell.count
    assert sum(cell.count for cell in said.cells) == len(pairs)
    sizes = [cell.count for cell in said.differences]
    assert sizes == sorted(sizes, reverse=True) and sum(sizes) == len(pairs) - said.agreeing


def test_the_largest_clusters_are_shown_beside_their_matches():
    pairs = [(i, (i + 1) % 300) for i in range(300) for _ in range(1 + i % 50)]
    matrix = compared(pairs).matrix(40, 40)
    assert matrix.matched == len(matrix.rows) == len(matrix.columns) == 40
    assert (matrix.other_rows, matrix.other_columns) == (260, 260) and min(c.size for c in matrix.rows) >= 43
    assert matrix.counts[0][0] == 50 and matrix.counts[0][-1] == 0 and len(matrix.counts) == 41


def test_thousands_of_clusters_take_no_matrix_of_zeros():
    """A dense one of these would have 1.6 billion cells."""
    order = list(range(40_000))
    random.Random(1).shuffle(order)
    assert match(dict.fromkeys(enumerate(order), 1)) == dict(enumerate(order))


# -- which items are the same -----------------------------------------------------------------------------------------


def test_items_of_one_only_are_counted_and_left_out():
    a, b = side([0, 0, 1, 1, 2]), side([5, 5, 6, 6])
    b.result.clusters[0].items.remove("1")
    changed = dict(b.contents) | {"2": "another content", "new": "content 9"}
    said = compare(a, Side(b.result, changed, ""))
    assert (said.items, said.only_a, said.only_b, said.changed, said.unplaced) == (2, 2, 2, 1, 1)
    assert {cell.items for cell in said.cells} == {("0",), ("3",)} and said.nmi == said.ari == 1


def test_nothing_to_compare():
    a, none = side([0, 0, 1], "a"), side([], "none")
    with pytest.raises(UsageError, match=r"'none' has no partition yet; `partita resume none`"):
        compare(a, none)
    other = Side(side([0, 1, 1], "b").result, {str(i): "new" for i in range(3)}, "")
    with pytest.raises(UsageError, match=r"'a' and 'b' have no item in common \(3 have the same name"):
        compare(a, other)


# -- from the database, and the command -------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    """Sessions `by kind` over one folder and `other` over a copy of it; their database's URL."""
    url = f"sqlite:///{tmp_path}/p.db"
    names = [f"{i:02d}.png" for i in range(24)]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for i, name in enumerate(names):
            draw(1000 + i).save(tmp_path / folder / name)
    draw(7).save(tmp_path / "two" / "more.png")
    with open_database(url) as db:
        kinds = {"red \x1b[31m<b>": names[:14], "[blue]": names[14:]}
        make_session(db, tmp_path / "one", kinds, name="by kind")
        moved = {"rot": names[2:14], "blau": [*names[14:], *names[:2]], "neu": ["more.png"]}
        make_session(db, tmp_path / "two", moved, name="other", criterion="Art")
    return url


def verb(*words: str) -> str:
    ran = CliRunner().invoke(cli_of_partita, ["compare", *words], env={"COLUMNS": "80"}, catch_exceptions=False)
    assert ran.exit_code == 0
    return ran.stdout


def test_from_python_and_as_json(stored, tmp_path):
    said = Session("by kind", stored).compare("other")
    assert (said.items, said.agreeing, said.only_a, said.only_b) == (24, 22, 0, 1)
    assert [(cell.a.name, cell.b.name, cell.items) for cell in said.differences] == [
        ("red \x1b[31m<b>", "blau", ("00.png", "01.png"))
    ]
    assert json.loads(verb("by kind", "other", "--db", stored, "--json")) == said.to_json()
    with open_database(elsewhere := f"sqlite:///{tmp_path}/q.db") as db:
        make_session(db, tmp_path / "one", {"all": [f"{i:02d}.png" for i in range(24)]}, name="other")
    assert Session("by kind", stored).compare(Session("other", elsewhere)).nmi == 0
    there = json.loads(verb("by kind", "other", "--db", stored, "--other-db", elsewhere, "--json"))
    assert there["nmi"] == 0 and there["b"]["clusters"] == [{"id": 1, "name": "all", "size": 24}]


def test_on_a_terminal_of_80_columns(stored):
    out = verb("by kind", "other", "--db", stored)
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    assert "\x1b" not in out and "1 red \\x1b[31m<b>" in out and "[blue]" in out
    matrix = out[out.index("A \\ B") :].splitlines()
    assert matrix[1].split()[-2:] == ["12", "2"] and matrix[2].split()[-2:] == ["·", "10"]
    assert "they differ on 2 items:" in out and "in A 1 “red \\x1b[31m<b>”, in B 2 “blau”" in out
    assert "00.png, 01.png" in out and "only in B             1" in out


def test_many_clusters_stay_on_a_screen(tmp_path):
    names = [f"{i:03d}.png" for i in range(90)]
    (tmp_path / "c").mkdir()
    for i, name in enumerate(names):
        draw(1000 + i).save(tmp_path / "c" / name)
    with open_database(url := f"sqlite:///{tmp_path}/p.db") as db:
        for session, step in (("a", 0), ("b", 1)):
            found = {f"a cluster of the long name {i}": [names[i], names[(i + 30 + step) % 90]] for i in range(30)}
            rest = {f"rest {i}": [names[i]] for i in range(60, 90) if i != 60 or not step}
            make_session(db, tmp_path / "c", found | rest, name=session)
    out = verb("a", "b", "--db", url)
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80 and len(out.splitlines()) < 70
    assert " others " in out and "more in" in out and "--json has them all" in out
