"""The losses against answers worked out by hand."""

import math

import pytest
import torch

from shic_cli.base.training_settings import TrainConfig
from shic_cli.learning import losses


def random_logp(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).log_softmax(-1)


def test_the_gradient_is_the_same_with_every_run_of_several_threads() -> None:
    """Many points share a vertex; sums in the order in which threads come would differ in their digits."""
    generator = torch.Generator().manual_seed(0)
    vertices, pixels = (torch.randn(size, 64, generator=generator) for size in (300, 8 * 500))
    vertex = torch.randint(20, (8, 500), generator=generator)
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(4)
    try:
        for _ in range(20):
            leaf = vertices.clone().requires_grad_()
            losses.synthetic(pixels.view(8, 500, 64), leaf, vertex, torch.arange(300)).backward()
            found.append(leaf.grad)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(each, found[0]) for each in found)


def test_pseudo_is_ln_k_for_a_model_that_knows_nothing():
    logp = losses.log_probability(torch.randn(2, 5, 16), torch.zeros(300, 16))
    assert losses.pseudo(logp, torch.zeros(2, 5, dtype=torch.long)).item() == pytest.approx(
        math.log(300), rel=1e-6
    )


def test_pseudo_is_zero_when_all_mass_is_on_the_match():
    logp = torch.full((1, 2, 3), -100.0)
    logp[0, 0, 1] = logp[0, 1, 2] = 0
    assert losses.pseudo(logp, torch.tensor([[1, 2]])).item() == 0


def test_distance_is_the_expected_distance_and_grows_when_mass_moves_away():
    geodesic = torch.tensor([[[0.0, 10.0, 100.0]]])
    near, far = torch.tensor([[[0.5, 0.5, 0.0]]]), torch.tensor([[[0.5, 0.0, 0.5]]])
    assert losses.distance(near.log(), geodesic).item() == pytest.approx(5)
    assert losses.distance(far.log(), geodesic).item() == pytest.approx(50)


def test_cycle_is_zero_when_every_pixel_has_its_own_vertex():
    logp = torch.full((1, 3, 3), -60.0, dtype=torch.float64)
    logp[0, range(3), [2, 0, 1]] = 0
    yx = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [10.0, 0.0]]], dtype=torch.float64)
    assert losses.cycle(logp, yx).item() == pytest.approx(0, abs=1e-9)


def test_cycle_is_the_mean_distance_when_pixels_share_one_vertex():
    logp = torch.full((1, 2, 3), -60.0, dtype=torch.float64)
    logp[0, :, 1] = 0  # both pixels go to vertex 1, which sends half of its mass back to each
    yx = torch.tensor([[[0.0, 0.0], [3.0, 4.0]]], dtype=torch.float64)
    assert losses.cycle(logp, yx).item() == pytest.approx(2.5)


def test_cycle_equals_the_formula_written_as_loops():
    p, yx = random_logp(1, 4, 6).exp()[0], torch.rand(4, 2, dtype=torch.float64) * 50
    expected = 0.0
    for u in range(4):
        for v in range(4):
            through = sum(p[u, x] * p[v, x] / p[:, x].sum() for x in range(6))
            expected += (through * (yx[u] - yx[v]).norm()).item() / 4
    assert losses.cycle(p.log()[None], yx[None]).item() == pytest.approx(expected)


def test_equivariance_is_zero_for_mirrored_probabilities_and_two_for_disjoint_ones():
    mirror = torch.tensor([1, 0, 3, 2])
    logp = random_logp(1, 3, 4)
    assert losses.equivariance(logp, logp[..., mirror], mirror).item() == pytest.approx(0)
    one, other = torch.full((1, 1, 4), -80.0), torch.full((1, 1, 4), -80.0)
    one[..., 0] = other[..., 0] = 0  # the flipped picture should have given vertex 1
    assert losses.equivariance(one, other, mirror).item() == pytest.approx(2)


def test_foreground_is_ln_2_for_logits_of_zero():
    assert losses.foreground(torch.zeros(1, 4, 4), torch.rand(1, 4, 4)).item() == pytest.approx(math.log(2))


def test_void_does_not_count_in_the_foreground():
    """Cells that are object, background, half void and half object, and void. The third is all object as far
    as is known, and counts half.
    """
    logits = torch.tensor([[[2.0, -1.0, 3.0, 9.0]]])
    mask, void = torch.tensor([[[1.0, 0.0, 0.5, 0.0]]]), torch.tensor([[[0.0, 0.0, 0.5, 1.0]]])
    each = [math.log1p(math.exp(-2)), math.log1p(math.exp(-1)), math.log1p(math.exp(-3)) / 2]
    assert losses.foreground(logits, mask, void).item() == pytest.approx(sum(each) / 2.5)
    assert losses.foreground(logits, mask, torch.zeros(1, 1, 4)) == losses.foreground(logits, mask)
    assert losses.foreground(logits, mask, torch.ones(1, 1, 4)) == 0


def test_losses_whose_setting_is_0_are_left_out_and_the_others_are_theirs():
    names = ("pseudo", "distance", "cycle", "equivariance")
    logp, mirrored = random_logp(2, 3, 4), random_logp(2, 3, 4, seed=1)
    vertex, yx = torch.tensor([[0, 1, 2], [3, 3, 0]]), torch.rand(2, 3, 2, dtype=torch.float64)
    geodesic, mirror = torch.rand(4, 4, dtype=torch.float64), torch.tensor([1, 0, 3, 2])
    expected = {
        "pseudo": losses.pseudo(logp, vertex),
        "distance": losses.distance(logp, geodesic[vertex]),
        "cycle": losses.cycle(logp, yx),
        "equivariance": losses.equivariance(logp, mirrored, mirror),
    }
    for left_out in (*names, ""):
        config = TrainConfig(**{name: float(name != left_out) for name in names})
        found = losses.natural(config, logp, mirrored, vertex, yx, geodesic, mirror)
        assert found == {name: value for name, value in expected.items() if name != left_out}


@pytest.mark.parametrize("name", ["pseudo", "distance", "cycle", "equivariance"])
def test_gradients_agree_with_finite_differences(name):
    logits = torch.randn(
        1, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True
    )
    mirror = torch.tensor([1, 0, 2, 4, 3])
    rest = {
        "pseudo": (torch.tensor([[0, 3, 2, 1]]),),
        "distance": (torch.rand(1, 4, 5, dtype=torch.float64),),
        "cycle": (torch.rand(1, 4, 2, dtype=torch.float64),),
        "equivariance": (random_logp(1, 4, 5, seed=2), mirror),
    }[name]
    assert torch.autograd.gradcheck(lambda x: getattr(losses, name)(x.log_softmax(-1), *rest), (logits,))


def test_a_sampled_softmax_over_all_vertices_is_the_exact_loss():
    generator = torch.Generator().manual_seed(0)
    pixels, vertices = (torch.randn(*shape, generator=generator) for shape in ((2, 5, 8), (40, 8)))
    vertex = torch.randint(0, 40, (2, 5), generator=generator)
    exact = losses.synthetic(pixels, vertices, vertex, torch.arange(40))
    torch.testing.assert_close(exact, losses.pseudo(losses.log_probability(pixels, vertices), vertex))
    few = [
        losses.synthetic(pixels, vertices, vertex, torch.randperm(40, generator=generator)[:20])
        for _ in range(200)
    ]
    assert abs(torch.stack(few).mean() - exact) < 0.3  # on average the drawn vertices stand for all
    untrained = losses.synthetic(torch.zeros(2, 5, 8), vertices, vertex, torch.arange(7))
    torch.testing.assert_close(untrained, torch.tensor(40.0).log())


def test_the_near_side_is_the_one_that_the_picture_shows_more_of():
    side = torch.tensor([[1.0, 1, 1, -1, 0], [-1, -1, -1, 1, 0], [1, -1, 1, -1, 0]])
    right = torch.tensor([[9.0, 9, 9, -9, 5], [9, 9, 9, -9, 5], [7, 7, 7, 7, 7]])
    # The last picture shows both sides alike: neither it nor the middle of the body counts.
    assert losses.near(right, side) < 1e-3
    assert losses.near(-right, side) > 2
    assert losses.near(right, torch.zeros(3, 5)) == 0


def test_a_sure_match_among_other_rivals_has_a_gradient():
    """A product that is larger than those of the rivals by more than exp() can hold."""
    vertices, pixels = torch.eye(4) * 30, torch.eye(4)[None, :1] * 30
    leaves = vertices.requires_grad_(), pixels.requires_grad_()
    losses.synthetic(pixels, vertices, torch.tensor([[0]]), torch.tensor([1, 2])).backward()
    assert all(leaf.grad is not None and torch.isfinite(leaf.grad).all() for leaf in leaves)
