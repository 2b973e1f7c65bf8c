"""Eq. 2 against a loop over pixels, vertices and views."""

import pytest
import torch
from torch.nn import functional as F

from shic_cli.learning import similarity
from shic_cli.learning.similarity import Bank

N, K, D, P, SIDE = 5, 9, 6, 7, 12


@pytest.fixture
def scene():
    g = torch.Generator().manual_seed(3)
    features = torch.randn(N, D, SIDE, SIDE, generator=g)
    yx = torch.rand(N, K, 2, generator=g) * (SIDE - 1)
    visible = torch.rand(N, K, generator=g) < 0.5
    visible[:, 0], visible[:, 1] = False, True  # one vertex is never seen, one always
    queries = F.normalize(torch.randn(P, D, generator=g), dim=1)
    return features, yx, visible, queries


def bilinear(feature: torch.Tensor, y: float, x: float) -> torch.Tensor:
    y0, x0 = min(int(y), SIDE - 2), min(int(x), SIDE - 2)
    a, b = y - y0, x - x0
    rows = [feature[:, y0 + i, x0] * (1 - b) + feature[:, y0 + i, x0 + 1] * b for i in (0, 1)]
    return rows[0] * (1 - a) + rows[1] * a


def brute_force(scene, pool: str, topk: int) -> torch.Tensor:
    features, yx, visible, queries = scene
    sigma = torch.full((K, P), -torch.inf)
    for k in range(K):
        for p in range(P):
            found = [
                F.cosine_similarity(queries[p], bilinear(features[i], *yx[i, k].tolist()), dim=0).item()
                for i in range(N)
                if visible[i, k]
            ]
            if found:
                best = sorted(found, reverse=True)
                sigma[k, p] = {
                    "max": best[0],
                    "mean": sum(found) / len(found),
                    "topk": sum(best[:topk]) / len(best[:topk]),
                }[pool]
    return sigma


@pytest.mark.parametrize("pool", ["max", "mean", "topk"])
def test_pooling_equals_a_loop(scene, pool):
    bank = Bank.build(*scene[:3], SIDE)
    found = similarity.pool_similarities(bank, scene[3], pool=pool, topk=2)
    torch.testing.assert_close(found, brute_force(scene, pool, 2), atol=1e-5, rtol=0)
    assert (found[0] == -torch.inf).all() and found[1].isfinite().all()


@pytest.mark.parametrize("pool", ["max", "mean", "topk"])
def test_a_bank_in_half_precision_is_near(scene, pool, monkeypatch):
    full = Bank.build(*scene[:3], SIDE)
    monkeypatch.setattr(similarity, "HALF_ON", ("cpu",))
    half = Bank.build(*scene[:3], SIDE)
    assert {rows.dtype for rows, _ in full.views} == {torch.float32} and {
        rows.dtype for rows, _ in half.views
    } == {torch.float16}
    for way in (similarity.match, similarity.pool_similarities):
        one, other = (way(bank, scene[3], pool=pool, topk=2, agreement=0.5) for bank in (full, half))
        for a, b in zip(one, other, strict=True):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, atol=5e-3, rtol=0)


@pytest.mark.parametrize("shape", [(3, 3), (4, 5)])
def test_cells_and_taps_give_what_rows_give(shape, monkeypatch):
    g = torch.Generator().manual_seed(1)
    features = torch.randn(4, D, *shape, generator=g)
    yx = torch.rand(4, 80, 2, generator=g) * (SIDE + 1) - 1  # beyond the outermost cells' centres too
    visible = torch.rand(4, 80, generator=g) < 0.7
    visible[3] = False
    queries = F.normalize(torch.randn(P, D, generator=g), dim=1)
    taps = Bank.build(features, yx, visible, SIDE)
    monkeypatch.setattr(similarity, "TAPS_ON", ())
    rows = Bank.build(features, yx, visible, SIDE)
    assert [type(each).__name__ for each, _ in taps.views] == ["Taps"] * 3 + ["Tensor"]
    assert all(isinstance(each, torch.Tensor) for each, _ in rows.views)
    for pool in ("max", "mean", "topk"):
        one, other = (
            similarity.pool_similarities(bank, queries, pool=pool, agreement=0.5) for bank in (taps, rows)
        )
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
        one, other = (similarity.match(bank, queries, pool=pool, agreement=0.5) for bank in (taps, rows))
        assert torch.equal(one[0], other[0])
        torch.testing.assert_close(one[1], other[1], atol=1e-6, rtol=0)


def test_a_cell_without_a_feature_gives_zeros_and_no_nan(monkeypatch):
    features, yx = torch.zeros(1, D, 3, 3), torch.rand(1, 80, 2) * (SIDE - 1)
    for where in (("cpu",), ()):  # as Taps, and as rows
        monkeypatch.setattr(similarity, "TAPS_ON", where)
        bank = Bank.build(features, yx, torch.ones(1, 80, dtype=torch.bool), SIDE)
        assert not torch.cat([s for s, _ in bank.similarities(torch.eye(D))]).any()


def test_a_peak_is_found_on_devices_that_numpy_can_not_read():
    value, column = similarity.peak(torch.empty(5, 3, device="meta"))
    assert value.shape == column.shape == (5,) and value.device.type == column.device.type == "meta"


def test_agreement_prefers_the_view_that_agrees_with_the_whole_object(scene):
    features, yx, visible, _ = scene
    visible = torch.ones_like(visible)
    bank = Bank.build(features, yx, visible, SIDE)
    queries = bank.views[2][0]  # the object is exactly what view 2 shows
    found = similarity.agreements(bank, queries)
    assert found.argmax() == 2 and found[2] == pytest.approx(1, abs=1e-5)
    strong = similarity.pool_similarities(bank, queries, agreement=100.0)
    torch.testing.assert_close(similarity.best_vertices(strong)[0], torch.arange(K))
    plain = similarity.pool_similarities(bank, queries)
    torch.testing.assert_close(similarity.pool_similarities(bank, queries, agreement=0.0), plain)
    torch.testing.assert_close(
        similarity.pool_similarities(bank, queries, pool="mean", agreement=9.0),
        similarity.pool_similarities(bank, queries, pool="mean"),
    )


@pytest.mark.parametrize(
    ("rows", "queries", "expected"),
    [(2, 1, (1 + 1 / 2) / 2), (1, 4, (1 / 4 + 1) / 2), (3, 3, 1.0), (0, 2, -1.0)],
)
def test_agreement_goes_from_pixels_to_vertices_and_back(rows, queries, expected):
    """Of four directions the view has the first `rows`, the object the first `queries`."""
    bank = Bank([(torch.eye(4)[:rows], torch.arange(rows))], 4)
    assert similarity.agreements(bank, torch.eye(4)[:queries]).tolist() == pytest.approx([expected])


def test_the_agreement_is_measured_at_about_400_pixels():
    """Of 1200 pixels every third, whatever the others are."""
    queries = torch.eye(4)[[0, 1, 2] * 400]
    assert similarity.agreements(Bank([(torch.eye(4)[:1], torch.arange(1))], 4), queries).item() == 1


def test_the_bonus_is_the_agreement_times_how_far_a_view_is_behind_the_best():
    bank = Bank([(torch.eye(4)[:2], torch.arange(2)), (torch.eye(4)[:1], torch.tensor([3]))], 4)
    found = similarity.pool_similarities(bank, torch.eye(4)[:2], agreement=2.0)
    assert found[:2].tolist() == [[1, 0], [0, 1]] and found[3].tolist() == pytest.approx([0.5, -0.5])
    assert similarity.match(bank, torch.eye(4)[:2], agreement=2.0)[0].tolist() == [0, 1]


def test_the_lowest_of_equal_vertices_wins():
    vertex, score = similarity.best_vertices(torch.tensor([[0.1, 0.3], [0.5, 0.3], [0.5, 0.2]]))
    assert vertex.tolist() == [1, 0] and score.tolist() == pytest.approx([0.5, 0.3])


def test_sample_reads_pixel_centres_exactly():
    maps = torch.arange(2 * 4 * 5, dtype=torch.float32).reshape(1, 2, 4, 5)[..., :4]
    yx = torch.tensor([[[0.0, 0.0], [3.0, 3.0], [1.0, 2.5]]])
    expected = torch.stack([maps[0, :, 0, 0], maps[0, :, 3, 3], (maps[0, :, 1, 2] + maps[0, :, 1, 3]) / 2])
    torch.testing.assert_close(similarity.sample(maps, yx, 4)[0], expected)


def test_beyond_the_outermost_centres_a_map_goes_on_as_it_is_there():
    yx = torch.tensor([[[-0.5, -0.5], [7.5, 3.0], [0.0, 7.5], [20.0, -20.0]]])
    torch.testing.assert_close(similarity.sample(torch.ones(1, 3, 4, 4), yx, 8), torch.ones(1, 4, 3))


@pytest.mark.parametrize("pool", ["max", "mean", "topk"])
@pytest.mark.parametrize("agreement", [0.0, 1e-4, 0.5, 5.0])
def test_match_gives_what_sigma_gives(scene, pool, agreement):
    bank, queries = Bank.build(*scene[:3], SIDE), scene[3]
    vertex, score = similarity.match(bank, queries, pool=pool, agreement=agreement)
    expected = similarity.best_vertices(
        similarity.pool_similarities(bank, queries, pool=pool, agreement=agreement)
    )
    assert torch.equal(vertex, expected[0])
    torch.testing.assert_close(score, expected[1])
    if not agreement:
        assert torch.equal(similarity.match(bank, queries, pool=pool)[1], score)  # what it does by default


def test_match_leaves_out_views_that_can_not_win_and_takes_the_lowest_of_equals():
    rows = torch.eye(4)

    class Counted(list):
        def __getitem__(self, i):
            used.append(i)
            return super().__getitem__(i)

    used: list[int] = []
    views = [
        (rows, torch.tensor([3, 2, 1, 0])),
        (rows, torch.arange(4)),
        (rows.roll(1, 1) * 0.5, torch.arange(4)),
    ]
    bank = Bank(Counted(views), 4)
    vertex, score = similarity.match(bank, rows, agreement=10.0)
    assert vertex.tolist() == [0, 1, 1, 0] and score.tolist() == [1, 1, 1, 1]
    assert sorted(used) == [0, 1]
