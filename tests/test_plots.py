"""Pictures show what they were given, where it belongs."""

from __future__ import annotations

import pytest
import torch
from conftest import small_vae
from matplotlib.figure import Figure
from PIL import Image
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


def test_versions_of_images_stand_below_each_other_with_their_names():
    versions = {
        "frame": torch.zeros(5, 1, 2, 4),
        "model": torch.ones(5, 1, 2, 4),
        "other": torch.full((5, 1, 2, 4), 0.5),
    }
    groups = plots.comparison(versions, columns=3, title="title").axes
    assert len(groups) == 2
    for axes, missing in zip(groups, (0, 1), strict=True):
        (image,) = axes.images
        pixels = torch.as_tensor(image.get_array())
        assert pixels.shape == (6, 12)
        assert pixels[:, 0].tolist() == [0, 0, 1, 1, 0.5, 0.5]
        assert pixels[2].tolist() == [1] * (12 - 4 * missing) + [0] * 4 * missing
        names = {label.get_text(): y for y, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}
        assert names == {"frame": 0.5, "model": 2.5, "other": 4.5}  # the middles of two rows of pixels each


def test_versions_that_do_not_belong_together():
    x = torch.zeros(3, 1, 2, 2)
    for images in ({"a": x, "b": x[:2]}, {}):
        with pytest.raises(ValueError, match="images have shapes"):
            plots.comparison(images)
    with pytest.raises(ValueError, match="a have shape"):
        plots.comparison({"a": x[:, 0]})


def identity() -> likelihoods.Bernoulli:
    """Two pixels, whose means are the sigmoids of z1 and z2."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Unflatten(-1, (1, 1, 2)))
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(2))
        network[0].bias.zero_()
    return likelihoods.Bernoulli(network)


def test_manifold_has_quantiles_of_the_prior_from_left_to_right_and_upwards():
    pixels = shown(plots.manifold(identity(), columns=3)).reshape(3, 3, 2)
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


def test_latent_space_has_images_and_codes_at_their_latents():
    z = torch.tensor([[0.0, 1.0], [-2.0, 0.5], [9.0, 9.0]])
    left, right = plots.latent_space(identity(), z, torch.tensor([0, 1, 1]), columns=5, title="title").axes
    normal = torch.distributions.Normal(0.0, 1.0)
    for axis in (left.xaxis, left.yaxis, right.xaxis, right.yaxis):
        named = torch.tensor([float(label.get_text()) for label in axis.get_ticklabels()])
        assert_close(normal.cdf(named), torch.as_tensor(axis.get_ticklocs(), dtype=torch.float32))
    (image,) = left.images
    assert list(image.get_extent()) == [0, 1, 0, 1]
    pixels = torch.as_tensor(image.get_array()).reshape(5, 5, 2)
    z1 = normal.icdf((torch.arange(5) + 0.5) / 5)
    assert_close(pixels[:, :, 0], z1.sigmoid().expand(5, 5))
    assert_close(pixels[:, :, 1], z1.flip(0).sigmoid()[:, None].expand(5, 5))
    assert {left.get_xlim(), left.get_ylim(), right.get_xlim(), right.get_ylim()} == {(0, 1)}
    points = torch.cat([torch.as_tensor(c.get_offsets().data) for c in right.collections]).float()
    assert_close(points, normal.cdf(z))


def test_animation_has_the_figures_in_order_and_waits_at_the_last(tmp_path):
    def figures():
        for grey in (0.0, 0.5, 1.0):
            yield plots.image_grid(torch.full((1, 1, 4, 4), grey), columns=1)

    plots.write_gif(figures(), tmp_path / "a.gif", seconds=0.2, dpi=50)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.format == "GIF"
        assert gif.n_frames == 3
        assert gif.info["loop"] == 0
        levels, durations = [], []
        for index in range(3):
            gif.seek(index)
            levels.append(gif.convert("L").getpixel((15, 15)))
            durations.append(gif.info["duration"])
    assert levels[0] > levels[1] > levels[2]  # 0 is white
    assert durations == [200, 200, 1000]
    images = torch.zeros(2, 1, 4, 4)
    for different in ([], [plots.image_grid(images[:1], columns=1), plots.image_grid(images, columns=1)]):
        with pytest.raises(ValueError, match=r"figures have the sizes .*; expected at least one, all of the same size"):
            plots.write_gif(different, tmp_path / "b.gif")


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
            plots.comparison({"x": x, "y": vae.reconstruct(x)}),
            plots.latent_space(vae.likelihood, vae.encode(x), title="epoch 1"),
        ]
    ):
        figure.savefig(tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").read_bytes().startswith(b"\x89PNG")
