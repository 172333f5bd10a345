"""Expected run length: cases by hand, and a plain walk over edges."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipelines import cli
from tests.evaluate.test_evaluate import evaluate, value
from tests.support.runs import store_volume
from tilenet.metrics import run_length

#: Two neurons along x, 30 voxels of 4 nm long, in edges of 10 voxels; z, y, x.
NODES = [(50 * z, 4 * y, 4 * x) for z, y in ((1, 2), (1, 10)) for x in (0, 10, 20, 30)]


def split() -> npt.NDArray[np.uint16]:
    """The first neuron in two pieces, the second whole."""
    ids = np.zeros((2, 12, 32), np.uint16)
    ids[1, :5, :15], ids[1, :5, 15:], ids[1, 8:] = 1, 2, 3
    return ids


def write_swc(folder: Path) -> str:
    folder.mkdir()
    for number, nodes in enumerate((NODES[:4], NODES[4:])):
        lines = ["# made by hand"]
        for i, (z, y, x) in enumerate(nodes, 1):
            lines.append(f"{i} 0 {x} {y} {z} 1.0 {i - 1 if i > 1 else -1}")
        (folder / f"{number}.swc").write_text("\n".join(lines))
    return str(folder)


def write_csv(path: Path, header: str) -> str:
    order = header.split(",")
    lines = [header]
    for i, (z, y, x) in enumerate(NODES):
        parent = "" if i % 4 == 0 else str(10 * (i - 1))
        known = {"id": str(10 * i), "z": str(z), "y": str(y), "x": str(x), "parent": parent}
        lines.append(",".join(known[name] for name in order))
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize("chunk", [(1, 4, 8), (2, 12, 32)])
@pytest.mark.parametrize("kind", ["swc", "csv"])
@pytest.mark.parametrize(
    ("merged", "expected", "edges"),
    [
        (False, (40**2 + 40**2 + 120**2) / 240, (5, 1, 0, 0)),
        (True, 40**2 / 240, (1, 1, 4, 0)),
    ],
)
def test_run_lengths_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chunk: tuple[int, int, int], kind: str,
    merged: bool, expected: float, edges: tuple[int, ...],
) -> None:  # fmt: skip
    ids = split()
    if merged:
        ids[ids == 2] = 3
    found = store_volume(tmp_path / "found.zarr", ids, chunk=chunk)
    truth = store_volume(tmp_path / "truth.zarr", split())
    skeletons = (
        write_swc(tmp_path / "swc") if kind == "swc"
        else write_csv(tmp_path / "nodes.csv", "parent,id,x,y,z")
    )  # fmt: skip
    record = evaluate(capsys, found, truth, "--segmentation", "--skeletons", skeletons)
    assert value(record, "expected_run_length") == pytest.approx(expected)
    said = record["skeletons"]
    assert said["longest"] == pytest.approx(120)
    assert tuple(said[name] for name in ("correct", "split", "merged", "missed")) == edges
    assert record["figures"]["expected_run_length"]["better"] == "higher"
    assert record["figures"]["expected_run_length"]["unit"] == "nm"


def test_edges_outside_of_what_is_judged_count_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = split()
    truth[1, 10, 30] = 65535  # the last node of the second neuron
    found = store_volume(tmp_path / "found.zarr", split())
    true = store_volume(tmp_path / "truth.zarr", truth)
    swc = write_swc(tmp_path / "swc")
    more = ("--segmentation", "--skeletons", swc, "--ignore", "65535", "--region", "x=5:")
    record = evaluate(capsys, found, true, *more)
    # Of the first neuron an edge that is split and a run of 40, of the second a run of 40.
    assert value(record, "expected_run_length") == pytest.approx((40**2 + 40**2) / 120)
    assert cli.run(["evaluate", found, true, *more]) == 0
    assert "3 of 6 edges lie where they are judged" in capsys.readouterr().err


def test_run_lengths_are_those_of_a_walk_over_edges() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        skeleton = np.repeat(np.arange(5), 8)
        edges = np.array([(i, i - 1 - int(rng.integers(0, i % 8))) for i in range(40) if i % 8])
        segments = rng.integers(0, 6, 5).repeat(8) * 10
        changed = rng.random(40) < 0.2
        segments[changed] = rng.integers(0, 8, int(changed.sum())) * 10
        lengths = rng.random(len(edges))
        owners = defaultdict(set)
        for node in range(40):
            owners[segments[node]].add(skeleton[node])
        runs: defaultdict[tuple[int, int], float] = defaultdict(float)
        for (a, b), length in zip(edges.tolist(), lengths.tolist(), strict=True):
            if segments[a] and segments[a] == segments[b] and len(owners[segments[a]]) == 1:
                runs[skeleton[a], segments[a]] += length
        expected = sum(run**2 for run in runs.values()) / lengths.sum()
        found = run_length(lengths, skeleton, segments, edges)
        assert math.isclose(found.expected, expected, rel_tol=1e-12, abs_tol=1e-15)
        assert found.correct + found.split + found.merged + found.missed == len(edges)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,z,y,x,parent\n1,50,8,0,\n2,50,8,40,7\n", "has no node 7, which is the parent"),
        ("1,50,8,0,-1\n1,50,8,40,-1\n", "holds a number of a node twice"),
        ("1,50,8,nan,-1\n2,50,8,40,1\n", "coordinates that are not finite"),
        ("1,50,8\n", "cannot be read after 0 nodes"),
        ("id,z,y,parent\n1,50,8,-1\n", "cannot be read after 0 nodes"),
        ("", "holds no node"),
        ("1,9e6,8,0,-1\n2,9e6,8,40,1\n", "have no edge in z=0:2,y=0:12,x=0:32"),
    ],
)
def test_wrong_skeletons_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    found = store_volume(tmp_path / "found.zarr", split())
    (tmp_path / "nodes.csv").write_text(text)
    command = ["evaluate", found, found, "--segmentation", "--skeletons"]
    assert cli.run([*command, str(tmp_path / "nodes.csv")]) == 1
    assert said in capsys.readouterr().err
    assert cli.run([*command, str(tmp_path / "none.swc")]) == 1
    assert "do not exist" in capsys.readouterr().err
