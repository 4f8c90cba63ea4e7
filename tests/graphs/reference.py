"""Algorithm 1 of the source, written as plainly as possible over networkx, to test the fast one against."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import networkx as nx

Answers = Callable[[object], str]


def representatives(graph: nx.Graph, members: Iterable[int], k: int) -> tuple[int, ...]:
    inside = graph.subgraph(members)
    ranked = sorted(inside, key=lambda v: (-inside.degree(v, weight="weight"), v))
    return tuple(sorted(ranked[:k]))


def ask(questions: list, question: tuple, answer: Answers) -> str:
    for attempt in range(3):
        questions.append((*question, attempt))
        conclusion = answer((*question, attempt))
        if conclusion != "UNKNOWN":
            break
    return conclusion


def component_agent(graph: nx.Graph, nodes: Iterable[int], k: int, answer: Answers) -> tuple[list[list[int]], list]:
    """Lines 1 to 14: clusters in the order in which they are finished, and the questions. Prunes ``graph``."""
    unassigned, clusters, questions = set(nodes), [], []
    while unassigned:
        part = graph.subgraph(unassigned)
        cluster = [min(unassigned, key=lambda v: (-part.degree(v, weight="weight"), v))]
        unassigned.remove(cluster[0])
        put_off: set[int] = set()
        while True:
            summed = {
                v: sum(graph[v][u]["weight"] for u in cluster if graph.has_edge(u, v))
                for v in unassigned - put_off
                if any(graph.has_edge(u, v) for u in cluster)
            }
            if not summed:
                break
            v = min(summed, key=lambda v: (-summed[v], v))
            shown = representatives(graph, cluster, k)
            conclusion = ask(questions, (shown, v), answer)
            if conclusion == "YES":
                cluster.append(v)
                unassigned.remove(v)
                put_off.clear()
            elif conclusion == "NO":
                graph.remove_edges_from([(u, v) for u in cluster if graph.has_edge(u, v)])
            else:
                put_off.add(v)
        for v in put_off:
            graph.remove_edges_from([(u, v) for u in cluster if graph.has_edge(u, v)])
        clusters.append(cluster)
    return clusters, questions


def merge_agent(graph: nx.Graph, clusters: list[list[int]], k: int, answer: Answers) -> tuple[list[list[int]], list]:
    """Lines 15 to 18: all pairs in order, starting again after each merge."""
    clusters, questions, judged = [list(c) for c in clusters], [], set()
    changed = True
    while changed:
        changed = False
        for a in range(len(clusters)):
            for b in range(a + 1, len(clusters)):
                shown = tuple(representatives(graph, clusters[i], k) for i in (a, b))
                if frozenset(shown) in judged:
                    continue
                conclusion = ask(questions, shown, answer)
                judged.add(frozenset(shown))
                if conclusion == "YES":
                    clusters[a] += clusters.pop(b)
                    changed = True
                    break
            if changed:
                break
    return clusters, questions
