"""Pictures show what they were given, where it belongs."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small_vae
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
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
    (scatter,) = axes.collections
    points = torch.as_tensor(scatter.get_offsets().data).float()
    order = (z[:, None] == points).all(-1).int().argmax(0)  # which code each point is
    assert sorted(order.tolist()) == list(range(20))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0", "1", "2"]
    named = [to_rgb(line.get_color()) for line in axes.get_legend().get_lines()]
    assert len(set(named)) == 3
    assert [tuple(color[:3]) for color in scatter.get_facecolors()] == [named[label] for label in labels[order]]
    (scatter,) = plots.codes(z).axes[0].collections
    assert len(scatter.get_offsets()) == 20


def test_no_class_of_codes_hides_another():
    """Where all codes coincide, the class that is drawn last has its share of the points drawn late, not all."""
    labels = torch.arange(1000).sort().values // 500
    (scatter,) = plots.codes(torch.randn(1000, 2), labels).axes[0].collections
    late = (scatter.get_facecolors()[500:, :3] == to_rgb("C1")).all(1).mean()
    assert 0.4 < late < 0.6  # six standard deviations of a random order: 6 * 0.5 / 1000**0.5 = 0.095
    assert (scatter.get_facecolors()[:, 3] < 1).all()
    before = torch.get_rng_state()
    plots.codes(torch.zeros(5, 2), torch.zeros(5))
    assert torch.equal(torch.get_rng_state(), before)


def test_many_classes_have_many_colours():
    axes = plots.codes(torch.randn(94, 2), torch.arange(94) % 47).axes[0]
    assert len({to_rgb(line.get_color()) for line in axes.get_legend().get_lines()}) == 47


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
    assert_close(points.sort(0).values, normal.cdf(z).sort(0).values)
    assert {tuple(point) for point in points.tolist()} == {tuple(point) for point in normal.cdf(z).tolist()}


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


def test_samples_stand_beside_their_means():
    draws, means = torch.rand(2, 7, 1, 4, 5).unbind(0)
    figure = plots.samples(draws, means, columns=3)
    for axes, images in zip(figure.axes, (draws, means), strict=True):
        pixels = torch.as_tensor(axes.images[0].get_array())
        assert_close(pixels[4:8, 5:10], images[4, 0])
    left, right = (axes.get_position() for axes in figure.axes)
    assert left.x1 < right.x0
    titles = {text.get_text(): text.get_position()[0] for text in figure.texts}
    assert titles["samples x ~ p(x)"] < 0.5 < titles["means of p(x | z), same z"]
    with pytest.raises(ValueError, match="have shape"):
        plots.samples(draws, means[0])


TITLE = "Reconstructions of frames that were not trained on, by each of the models"


@pytest.mark.parametrize("columns", [1, 10])
@pytest.mark.parametrize("width", [2, 20])
def test_titles_are_not_cut(columns, width):
    images = torch.rand(3, 1, 10, width)
    for figure in (
        plots.image_grid(images, columns, TITLE),
        plots.samples(images, images, columns),
        plots.reconstructions(images, images, columns),
        plots.comparison({"a": images, "b": images}, columns, TITLE),
    ):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        assert figure.texts
        assert figure.get_figwidth() < 3.5 + 2 * columns * 0.6 * width / 10  # which the titles have not widened much
        for text in figure.texts:
            box = text.get_window_extent(canvas.get_renderer())
            assert 0 <= box.x0 <= box.x1 <= figure.bbox.width
            assert 0 <= box.y0 <= box.y1 <= figure.bbox.height
            assert not any(axes.bbox.overlaps(box) for axes in figure.axes)


@pytest.mark.parametrize("event", [(1, 1, 100), (1, 100, 1), (3, 1, 100)])
def test_series_are_lines(event):
    series = torch.rand(7, *event)
    figure = plots.image_grid(series, columns=3, title="series")
    (axes,) = figure.axes
    assert not axes.images
    assert figure.get_figwidth() < 10
    lines = axes.collections[: event[0]]  # those after them are the borders
    for channel, line in enumerate(lines):
        points = torch.tensor([segment.tolist() for segment in line.get_segments()])
        assert points.shape == (7, 100, 2)
        height, width = 100 / 1.5, 100
        x, y = points.unbind(-1)
        index = torch.arange(7)[:, None]
        assert ((x + 0.5 >= index % 3 * width) & (x + 0.5 <= (index % 3 + 1) * width)).all()  # in its own cell
        assert ((y + 0.5 >= index // 3 * height) & (y + 0.5 <= (index // 3 + 1) * height)).all()
        assert (x.diff() > 0).all()
        level = ((index // 3 + 1) * height - 0.5 - y) / height  # from the bottom of the cell
        assert_close(level, 0.05 + 0.9 * series[:, channel].flatten(1), atol=1e-4, rtol=0)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is on top


def test_other_pictures_of_series_are_lines():
    series = torch.rand(5, 1, 1, 40)
    network = torch.nn.Sequential(torch.nn.Linear(2, 40), torch.nn.Unflatten(-1, (1, 1, 40)))
    likelihood = likelihoods.Bernoulli(network)
    reconstructions = plots.reconstructions(series, series, columns=3)
    drawn = [line for line in reconstructions.axes[0].collections[0].get_segments() if len(line)]
    assert len(drawn) == 10  # and none for the two that are missing in each last row
    for figure in (
        reconstructions,
        plots.comparison({"a": series, "b": series}, columns=3),
        plots.manifold(likelihood, columns=3),
        plots.latent_space(likelihood, torch.randn(4, 2), columns=3),
    ):
        assert not any(axes.images for axes in figure.axes)
        FigureCanvasAgg(figure).draw()


def test_curves_start_at_epoch_one():
    axes = plots.curves({"train": [3.0, 2.0], "valid": [4.0, 3.0]}).axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 3], [2, 2]], [[1, 4], [2, 3]]]


@pytest.mark.parametrize("shape", [(0, 1, 2, 2), (3, 2, 2, 2), (4, 4)])
def test_images_of_another_shape(shape):
    with pytest.raises(ValueError, match="images have shape"):
        plots.image_grid(torch.zeros(shape))


def test_a_notebook_shows_them():
    figure = pickle.loads(pickle.dumps(plots.curves({"train": [2.0, 1.0]})))
    picture = Image.open(io.BytesIO(figure._repr_png_()))  # what Jupyter calls
    assert picture.format == "PNG"
    assert picture.size == tuple(figure.bbox.size.astype(int))


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


def test_series_are_points_and_their_means_lines():
    values, means = torch.randn(7, 6, 2), torch.randn(7, 6, 2)
    values[0, 3, 1] = torch.nan
    figure = plots.series(values, means, columns=3, title="a title")
    assert len(figure.axes) == 9
    assert [bool(axes.axison) for axes in figure.axes] == [True] * 7 + [False] * 2
    for axes, some, mean in zip(figure.axes[:7], values, means, strict=True):
        points, lines = axes.lines[::2], axes.lines[1::2]
        for i in range(2):
            assert_close(torch.as_tensor(points[i].get_ydata()), some[:, i], equal_nan=True)
            assert_close(torch.as_tensor(lines[i].get_ydata()), mean[:, i])
            assert points[i].get_color() == lines[i].get_color()
    with pytest.raises(ValueError, match=r"shapes \[7, 6, 2\] and \[7, 6\]; expected \[n, steps, features\]"):
        plots.series(values, means[..., 0])


def test_columns_of_tables_are_drawn_with_their_names_and_shares():
    data = pd.DataFrame({"mass": np.arange(40.0), "kind": ["a", "b", "b", None] * 10})
    samples = pd.DataFrame({"mass": np.full(20, 39.0), "kind": ["a"] * 15 + ["c"] * 5})
    mass, kind = plots.columns(data, samples).axes[:2]
    assert [mass.get_title(), kind.get_title()] == ["mass", "kind"]
    heights = [bar.get_height() for bar in kind.patches]
    assert heights == pytest.approx([1 / 3, 2 / 3, 3 / 4, 0])  # of the data, then of the samples
    assert [label.get_text() for label in kind.get_xticklabels()] == ["a", "b"]
    filled, outline = mass.patches
    assert filled.get_path().get_extents().height == pytest.approx(2 / 40)  # two numbers in each bin
    assert outline.get_path().get_extents().height == pytest.approx(1)


def test_a_notebook_shows_figures_without_pyplot():
    formatter = pytest.importorskip("IPython.core.formatters", reason="needs IPython").DisplayFormatter()
    formatter.active_types = ["image/png"]
    formats, _ = formatter.format(plots.curves({"loss": [2.0, 1.0]}))
    assert formats["image/png"].startswith(b"\x89PNG")
