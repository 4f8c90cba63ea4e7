"""A person's word on a partition: what comes of each, whatever the agents come to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from graphs.corrections import Correction, corrected
from graphs.partition import NamedCluster, Partition

SUITS = Partition(
    (NamedCluster("hearts", (3, 0, 1, 2)), NamedCluster("spades", (4, 5, 6)), NamedCluster("clubs", (7, 8))),
    dict.fromkeys(range(9), 0.9),
)


def sets(partition: Partition) -> dict[str, set[int]]:
    return {cluster.name: set(cluster.nodes) for cluster in partition.clusters}


def test_nothing_said_changes_nothing() -> None:
    assert corrected(SUITS, []) is SUITS


def test_items_move_and_are_certain_there() -> None:
    made = corrected(SUITS, [Correction("move", (0, 4), (7, 8))])
    assert sets(made) == {"clubs": {7, 8, 0, 4}, "hearts": {1, 2, 3}, "spades": {5, 6}}
    assert made.clusters[0].nodes[:2] == (7, 8)  # those that stand for it stay in front
    assert made.confidence is not None and made.confidence[0] == made.confidence[4] == 1.0 and made.confidence[7] == 0.9
    assert corrected(Partition(SUITS.clusters), [Correction("move", (0,), (7,))]).confidence is None


def test_a_cluster_is_the_one_that_holds_most_of_those_named() -> None:
    made = corrected(SUITS, [Correction("move", (7,), (0, 1, 4))])
    assert sets(made)["hearts"] == {0, 1, 2, 3, 7}
    gone = corrected(SUITS, [Correction("move", (7, 8), (0,)), Correction("move", (5,), (7,))])
    assert sets(gone) == {"hearts": {0, 1, 2, 3, 5, 7, 8}, "spades": {4, 6}}


def test_split_unite_and_rename() -> None:
    assert sets(corrected(SUITS, [Correction("split", (0, 1), name="red")]))["red"] == {0, 1}
    assert sets(corrected(SUITS, [Correction("split", (0,))])) == {
        "hearts": {1, 2, 3}, "spades": {4, 5, 6}, "clubs": {7, 8}, "hearts (2)": {0},
    }  # fmt: skip
    united = corrected(SUITS, [Correction("unite", (7,), (4, 5)), Correction("rename", (4,), name="black")])
    assert sets(united) == {"black": {4, 5, 6, 7, 8}, "hearts": {0, 1, 2, 3}}
    assert united.clusters[0].name == "black"  # the largest is first
    assert united.confidence == SUITS.confidence  # nobody looked at every item
    assert sets(corrected(SUITS, [Correction("unite", (4,), (5,))])) == sets(SUITS)


def test_together_and_apart() -> None:
    assert sets(corrected(SUITS, [Correction("together", (0, 1, 4))]))["hearts"] == {0, 1, 2, 3, 4}
    assert sets(corrected(SUITS, [Correction("apart", (0, 4), (1,))])) == {
        "hearts": {1, 2, 3}, "spades": {4, 5, 6}, "clubs": {7, 8}, "hearts (2)": {0},
    }  # fmt: skip
    assert sets(corrected(SUITS, [Correction("apart", (0,), (4,))])) == sets(SUITS)
    # as a copy of it among the others is told: it leaves them, and no other cluster that agents put it in
    assert sets(corrected(SUITS, [Correction("apart", (0,), (0, 4))])) == sets(SUITS)


def test_together_of_equals_goes_by_what_a_person_placed_last_and_by_the_first_named() -> None:
    assert sets(corrected(SUITS, [Correction("together", (7, 0))]))["clubs"] == {7, 8, 0}
    placed = Correction("move", (3,), (7,))
    assert sets(corrected(SUITS, [placed, Correction("together", (0, 3))]))["clubs"] == {3, 7, 8, 0}
    both = [Correction("split", (0,), name="own"), placed]
    assert sets(corrected(SUITS, [*both, Correction("together", (0, 3))]))["clubs"] == {3, 7, 8, 0}
    assert sets(corrected(SUITS, [*both, Correction("move", (0,), (4,)), Correction("together", (3, 0))])) == {
        "spades": {4, 5, 6, 0, 3}, "hearts": {1, 2}, "clubs": {7, 8},
    }  # fmt: skip
    # What a person placed counts among equals only.
    assert sets(corrected(SUITS, [placed, Correction("together", (3, 0, 1))]))["hearts"] == {0, 1, 2, 3}


def test_what_is_no_longer_there_is_left_out() -> None:
    assert sets(corrected(SUITS, [Correction("move", (99,), (0,)), Correction("move", (0,), (99,))])) == sets(SUITS)


_NODES = st.lists(st.integers(0, 11), max_size=5).map(tuple)
_ANY = st.builds(
    Correction, st.sampled_from(["move", "split", "unite", "rename", "together", "apart"]), _NODES, _NODES,
    st.none() | st.text(max_size=3),
)  # fmt: skip


@given(st.lists(st.integers(0, 4), min_size=1, max_size=10), st.lists(_ANY, max_size=6))
def test_every_node_stands_in_one_cluster_and_the_last_word_holds(homes: list[int], said: list[Correction]) -> None:
    clusters = [tuple(v for v, home in enumerate(homes) if home == c) for c in sorted(set(homes))]
    clusters.sort(key=lambda nodes: (-len(nodes), min(nodes)))
    before = Partition(tuple(NamedCluster(str(c), nodes) for c, nodes in enumerate(clusters)))
    made = corrected(before, said)
    assert sorted(v for c in made.clusters for v in c.nodes) == list(range(len(homes)))
    assert all(c.nodes for c in made.clusters)
    assert [len(c.nodes) for c in made.clusters] == sorted((len(c.nodes) for c in made.clusters), reverse=True)
    if said:
        last = said[-1]
        home = {v: i for i, c in enumerate(made.clusters) for v in c.nodes}
        items, others = ([v for v in nodes if v in home] for nodes in (last.items, last.others))
        if last.did in ("split", "together") or (last.did == "move" and items and others):
            assert len({home[v] for v in items}) <= 1
        if last.did == "apart":
            assert not {home[v] for v in set(items) - set(others)} & {home[v] for v in set(others) - set(items)}
