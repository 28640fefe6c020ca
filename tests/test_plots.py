"""Pictures show what they were given, where it belongs."""

from __future__ import annotations

import pytest
import torch
from conftest import small_vae
from matplotlib.figure import Figure
from torch.testing import assert_close

from pyro_vae import VAE, likelihoods, plots


def shown(figure: Figure) -> torch.Tensor:
    """The pixels of the only image in a figure."""
    (image,) = figure.axes[0].images
    return torch.as_tensor(image.get_array())


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_has_every_image_in_reading_order(channels):
    images = torch.rand(7, channels, 4, 5)
    pixels = shown(plots.image_grid(images, columns=3)).reshape(12, 15, channels)
    for i, image in enumerate(images):
        row, column = divmod(i, 3)
        tile = pixels[4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
        assert_close(tile.permute(2, 0, 1), image)


def test_reconstructions_stand_below_their_originals():
    x, y = torch.zeros(5, 1, 2, 2), torch.ones(5, 1, 2, 2)
    pixels = shown(plots.reconstructions(x, y, columns=3))
    assert pixels[:, 0].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert pixels[-1].tolist() == [1, 1, 1, 1, 0, 0]


def test_manifold_has_quantiles_of_the_prior_from_left_to_right_and_upwards():
    likelihood = likelihoods.Bernoulli(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Unflatten(-1, (1, 1, 2))))
    with torch.no_grad():
        likelihood.network[0].weight.copy_(torch.eye(2))
        likelihood.network[0].bias.zero_()
    pixels = shown(plots.manifold(likelihood, columns=3)).reshape(3, 3, 2)
    z = torch.tensor([-0.9674, 0.0, 0.9674]).sigmoid()  # the standard normal's quantiles at 1/6, 1/2, 5/6
    assert_close(pixels[0, :, 0], z, atol=1e-4, rtol=0)
    assert_close(pixels[:, 0, 1], z.flip(0), atol=1e-4, rtol=0)


def test_codes_are_all_there():
    z, labels = torch.randn(20, 2), torch.arange(20) % 3
    axes = plots.codes(z, labels).axes[0]
    points = torch.cat([torch.as_tensor(c.get_offsets().data) for c in axes.collections]).float()
    assert len(axes.collections) == 3
    assert_close(points.sort(0).values, z.sort(0).values)
    assert len(plots.codes(z).axes[0].collections) == 1


def test_curves_start_at_epoch_one():
    axes = plots.curves({"train": [3.0, 2.0], "valid": [4.0, 3.0]}).axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 3], [2, 2]], [[1, 4], [2, 3]]]


@pytest.mark.parametrize("shape", [(0, 1, 2, 2), (3, 2, 2, 2), (4, 4)])
def test_images_of_another_shape(shape):
    with pytest.raises(ValueError, match="images have shape"):
        plots.image_grid(torch.zeros(shape))


def test_they_can_be_written(tmp_path):
    vae: VAE = small_vae()
    x = vae.sample(5)
    for i, figure in enumerate(
        [
            plots.manifold(vae.likelihood),
            plots.codes(vae.encode(x)),
            plots.reconstructions(x, vae.reconstruct(x)),
            plots.curves({"a": [1.0]}),
        ]
    ):
        figure.savefig(tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").read_bytes().startswith(b"\x89PNG")
