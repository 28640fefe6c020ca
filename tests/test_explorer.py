"""The explorer's page, in a browser: what it shows, and that its pictures are those of PyTorch."""

from __future__ import annotations

import base64
import io
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from browser import PICTURES, browser, wait_until  # noqa: F401  # a fixture
from conftest import small_vae
from PIL import Image
from test_cli import error, run

from pyro_vae import VAE, ConditionalVAE, evidence, explorer, likelihoods, nn, posteriors, priors
from pyro_vae.explorer.labels import label_names
from pyro_vae.explorer.latent_map import latent_map
from pyro_vae.explorer.page import asset
from pyro_vae.explorer.page import page as html_page
from pyro_vae.explorer.thumbnails import thumbnails
from pyro_vae.tables import Table

TOLERANCE = 1e-4
HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">\u2028\u2029 \'"`{{content}}&amp;'


class Tab:
    """A page that is open in the browser, and what went wrong in it."""

    def __init__(self, browser, path, **options):  # noqa: F811
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        self.page = self.context.new_page()
        self.problems, self.requests = [], []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda exception: self.problems.append(str(exception)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        wait_until(self.page, "window.explorer && window.explorer.ready && explorer.state.outputs")
        self.path = path

    def _hear(self, message):
        # Reading canvases is what these tests do, not the page.
        if message.type in ("error", "warning") and "willReadFrequently" not in message.text:
            self.problems.append(message.text)

    def state(self):
        """z, and what is decoded there, after the next frame."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return [torch.tensor(self.page.evaluate(f"Array.from(explorer.state.{name})")) for name in ("z", "outputs[0]")]

    def pixels(self, selector):
        """The pixels of a canvas, ``[height, width, 4]``."""
        width, text = self.page.evaluate(
            """(selector) => {
              const canvas = document.querySelector(selector);
              const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              let text = "";
              for (let i = 0; i < image.data.length; i += 8192) text += String.fromCharCode(...image.data.subarray(i, i + 8192));
              return [image.width, btoa(text)];
            }""",
            selector,
        )
        return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8).int().reshape(-1, width, 4)

    def on_map(self, position):
        """The place of a position of the map in the window."""
        box = self.page.locator("#map").bounding_box()
        x, y = self.page.evaluate("(position) => explorer.toPixels(position)", list(position))
        return box["x"] + x, box["y"] + y

    def close(self):
        self.context.close()
        assert self.problems == []
        assert self.requests == [self.path.as_uri()]  # the page itself, and nothing else


@pytest.fixture
def open_page(browser):  # noqa: F811
    tabs = []

    def opened(path, **options):
        tabs.append(Tab(browser, path, **options))
        return tabs[-1]

    yield opened
    for tab in tabs:
        PICTURES.mkdir(parents=True, exist_ok=True)
        tab.page.screenshot(path=PICTURES / f"test-{tab.path.stem}.png", full_page=True)
        tab.close()


def vivid(vae):
    """The same VAE with larger weights, so that latents make a difference that can be seen."""
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.mul_(2.0)
    return vae.eval()


def image_vae(latent, event=(1, 6, 5), likelihood=likelihoods.Bernoulli):
    return vivid(VAE(
        priors.StandardNormal(latent),
        likelihood(nn.mlp(latent, [8], event)),
        posteriors.Normal(nn.mlp(event, [8], 2 * latent)),
    ))  # fmt: skip


@torch.no_grad()
def decoded(vae, z):
    return vae.likelihood(z[None]).mean.flatten()


def bounds(vae, x):
    return evidence.importance(vae.model, vae.guide, x, num_samples=20, progress=False)


def write(vae, x, folder, name, **options):
    return explorer.write(vae, x, folder / f"{name}.html", **{"lowest": 0, "progress": False} | options)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A page of small binary images with two latents, the VAE and its data."""
    torch.manual_seed(0)
    vae = image_vae(2)
    x = vae.sample(60)
    folder = tmp_path_factory.mktemp("digits")
    path = write(vae, x, folder, "digits", labels=torch.arange(60) % 3, points=40, lowest=3, log_prob=bounds(vae, x))
    return path, vae, x


def test_dragging_decodes(open_page, digits):
    path, vae, _ = digits
    tab = open_page(path)
    assert tab.page.evaluate("explorer.comparison()") < TOLERANCE
    before = tab.pixels("#pair canvas")
    tab.page.mouse.move(*tab.on_map((0.31, -0.42)))
    tab.page.mouse.down()
    for position in ((0.6, 0.8), (-0.9, 1.1), (1.2, -0.7)):
        tab.page.mouse.move(*tab.on_map(position))
        z, mean = tab.state()
        # The pointer is at a whole pixel, and it began on a point or beside one.
        begun_apart = 40 / tab.page.evaluate("explorer.toPixels([1, 0])[0] - explorer.toPixels([0, 0])[0]")
        assert (z - torch.tensor(position)).abs().max() < begun_apart
        assert (mean - decoded(vae, z)).abs().max() < TOLERANCE
        shown = tab.pixels("#pair canvas")
        assert (shown != before).any()
        # Ink on paper: from white to nearly black.
        expected = 255 + (torch.tensor([20, 22, 28]) - 255) * decoded(vae, z).reshape(6, 5, 1)
        light = tab.page.evaluate("explorer.content.view.ink")
        assert not light or (shown[..., :3] - expected).abs().max() <= 1
    tab.page.mouse.up()


def test_dragging_a_point_begins_at_its_code(open_page, digits):
    path, vae, _ = digits
    tab = open_page(path)
    code = tab.page.evaluate("Array.from(explorer.codes.subarray(10, 12))")
    tab.page.mouse.move(*tab.on_map(code))
    tab.page.mouse.down()
    chosen = tab.page.evaluate("explorer.state.point")
    z, _ = tab.state()
    assert z.tolist() == pytest.approx(
        tab.page.evaluate(f"Array.from(explorer.codes.subarray({2 * chosen}, {2 * chosen + 2}))")
    )
    x, y = tab.on_map(code)
    tab.page.mouse.move(x + 50, y)
    moved, mean = tab.state()
    unit = tab.page.evaluate("explorer.toPixels([1, 0])[0] - explorer.toPixels([0, 0])[0]")
    assert (moved - z - torch.tensor([50 / unit, 0.0])).abs().max() < 20 / unit
    assert (mean - decoded(vae, moved)).abs().max() < TOLERANCE
    tab.page.mouse.up()


def test_hovering_shows_the_datapoint(open_page, digits):
    path, _, x = digits
    tab = open_page(path)
    position = tab.page.evaluate("Array.from(explorer.positions.subarray(6, 8))")
    tab.page.mouse.move(*tab.on_map(position))
    text = tab.page.locator("#tip").inner_text()
    row = int(re.search(r"Datapoint (\d+)", text).group(1))
    assert f"label {row % 3}" in text
    assert "log p(x)" in text
    ink = tab.pixels("#tip canvas")[..., 0] < 128
    light_on_dark = not tab.page.evaluate("explorer.content.view.ink")
    assert torch.equal(ink ^ light_on_dark, x[row, 0] == 1)


def test_sliders_set_single_latents(open_page, digits):
    path, vae, _ = digits
    tab = open_page(path)
    first, _ = tab.state()
    slider = tab.page.get_by_label(re.compile("Latent z2"))
    slider.focus()
    for _ in range(30):
        tab.page.keyboard.press("ArrowRight")
    z, mean = tab.state()
    assert z[0] == first[0]
    assert z[1] > first[1] + 0.1
    assert (mean - decoded(vae, z)).abs().max() < TOLERANCE
    tab.page.get_by_role("button", name="Back to the code").click()
    assert torch.equal(tab.state()[0], first)


def test_it_interpolates_between_two_datapoints(open_page, digits):
    path, vae, _ = digits
    tab = open_page(path)
    for point, button in ((4, "Set A"), (9, "Set B")):
        tab.page.evaluate(f"explorer.choose({point})")
        tab.page.get_by_role("button", name=button).click()
    tab.page.get_by_role("button", name="Decode 50 % of the way from A to B").click()
    z, mean = tab.state()
    codes = torch.tensor(tab.page.evaluate("Array.from(explorer.codes)")).reshape(-1, 2)
    assert (z - (codes[4] + codes[9]) / 2).abs().max() < 1e-6
    assert (mean - decoded(vae, z)).abs().max() < TOLERANCE
    tab.page.get_by_role("button", name="Swap").click()
    assert tab.page.evaluate("[explorer.state.a, explorer.state.b]") == [9, 4]
    slider = tab.page.get_by_label("Position from A to B")
    slider.focus()
    tab.page.keyboard.press("End")
    assert torch.equal(tab.state()[0], codes[4])


def test_everything_works_with_the_keyboard(open_page, digits):
    path, vae, _ = digits
    tab = open_page(path, reduced_motion="reduce")
    for _ in range(20):
        tab.page.keyboard.press("Tab")
        if tab.page.evaluate("document.activeElement.id") == "map":
            break
    else:
        pytest.fail("the map is not reached by Tab")
    outline = tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"  # the focus can be seen
    first, _ = tab.state()
    tab.page.keyboard.press("Shift+ArrowRight")
    tab.page.keyboard.press("ArrowUp")
    z, mean = tab.state()
    assert z[0] > first[0]
    assert z[1] > first[1]
    assert z[0] - first[0] > 4 * (z[1] - first[1])
    assert (mean - decoded(vae, z)).abs().max() < TOLERANCE
    point = tab.page.evaluate("explorer.state.point")
    tab.page.keyboard.press("PageDown")
    tab.state()
    assert tab.page.evaluate("explorer.state.point") == (point + 1) % 40
    tab.page.keyboard.press("a")
    assert tab.page.evaluate("explorer.state.a") == (point + 1) % 40
    tab.page.keyboard.press("Shift+ArrowDown")
    tab.page.keyboard.press("Enter")
    z, _ = tab.state()
    codes = torch.tensor(tab.page.evaluate("Array.from(explorer.codes)")).reshape(-1, 2)
    assert (codes - z).abs().sum(1).min() == 0
    wait_until(tab.page, "document.getElementById('status').textContent.includes('At the code of datapoint')")
    assert not tab.page.locator("#play").is_visible()  # it moves
    # Whatever can be operated has a name.
    nameless = tab.page.evaluate(
        """Array.from(document.querySelectorAll("button, input, select, canvas[tabindex]")).filter((each) =>
          !(each.getAttribute("aria-label") || each.textContent.trim() || (each.labels && each.labels.length))).length"""
    )
    assert nameless == 0


def test_labels_can_be_hidden(open_page, digits):
    path, _, _ = digits
    tab = open_page(path)
    before = tab.pixels("#map")
    button = tab.page.locator("#legend button").first
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert (tab.pixels("#map") != before).any()
    button.click()
    assert torch.equal(tab.pixels("#map"), before)


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (390, "light"), (1280, "dark")])
def test_narrow_windows_and_dark_colours(open_page, digits, width, scheme):
    path, _, _ = digits
    path = Path(shutil.copy(path, path.with_name(f"digits-{width}-{scheme}.html")))
    tab = open_page(path, viewport={"width": width, "height": 844}, color_scheme=scheme)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    red = int(re.search(r"\d+", tab.page.evaluate("getComputedStyle(document.body).backgroundColor")).group())
    assert (red < 60) == (scheme == "dark")
    tab.page.locator("#theme").click()
    assert tab.page.evaluate("document.documentElement.dataset.theme") != scheme


def test_many_latents(open_page, tmp_path):
    vae = image_vae(50)
    x = vae.sample(30)
    path = write(vae, x, tmp_path, "many_latents", labels=[f"kind {i % 12}" for i in range(30)])
    tab = open_page(path)
    assert tab.page.locator("#sliders > label").count() == 10
    assert tab.page.locator("#sliders details label").count() == 40
    assert not tab.page.locator("#sliders details label").first.is_visible()
    variances = vae.encode(x).var(0)
    names = tab.page.locator("#sliders label > span:first-child").all_inner_texts()
    assert names[:10] == [f"z{unit + 1}" for unit in variances.argsort(descending=True)[:10].tolist()]
    assert tab.page.locator("#legend button").count() == 12
    # Dragging moves z in the plane of the map, and leaves what is orthogonal to it.
    first, _ = tab.state()
    tab.page.locator("#map").focus()
    tab.page.keyboard.press("Shift+ArrowLeft")
    z, mean = tab.state()
    axes = latent_map(vae.encode(x), "pca").axes.float()
    moved = z - first
    assert (moved - (moved @ axes.T) @ axes).norm() < 1e-4 < moved.norm()
    assert (moved @ axes[1]).abs() < 1e-4
    assert (mean - decoded(vae, z)).abs().max() < TOLERANCE


def test_colour_images(open_page, tmp_path):
    event = (3, 8, 7)
    vae = vivid(VAE(
        priors.StandardNormal(2),
        likelihoods.DiscretizedLogistic(nn.convolutional_decoder(2, (*event, 2), [6, 4])),
        posteriors.Normal(nn.convolutional_encoder(event, 4, [4, 6])),
    ))  # fmt: skip
    x = vae.sample(20)
    tab = open_page(write(vae, x, tmp_path, "colours"))
    z, mean = tab.state()
    expected = decoded(vae, z)
    assert (mean - expected).abs().max() < TOLERANCE
    shown = tab.pixels("#pair canvas")
    assert (shown[..., :3] - 255 * expected.reshape(event).permute(1, 2, 0)).abs().max() <= 1
    original = tab.pixels("#pair figure:last-child canvas")
    row = tab.page.evaluate("explorer.content.arrays.rows ? explorer.state.point : 0")
    assert (original[..., :3] - 255 * x[row].permute(1, 2, 0)).abs().max() <= 1
    tab.page.locator("#behind").check()
    tab.page.wait_for_timeout(100)


def test_series_with_gaps(open_page, tmp_path):
    event = (12, 2)
    decoder = nn.series_decoder(3, event, [6, 4])
    encoder = nn.FillMissing(nn.series_encoder(event, 6, [4, 6]))
    vae = VAE(
        priors.StandardNormal(3),
        likelihoods.Incomplete(likelihoods.Normal(decoder, 0.5)),
        posteriors.Normal(encoder),
    ).eval()
    x = vae.sample(25)
    x[:, 4:6, 0] = torch.nan
    tab = open_page(write(vae, x, tmp_path, "series", names=["height", HOSTILE], log_prob=bounds(vae, x), lowest=2))
    z, mean = tab.state()
    assert (mean - decoded(vae, z)).abs().max() < TOLERANCE
    before = tab.pixels("#lines")
    assert tab.page.locator(".series-legend").inner_text().split("\n")[0].strip().startswith("height")
    tab.page.locator("#map").focus()
    tab.page.keyboard.press("Shift+ArrowLeft")
    tab.page.keyboard.press("Shift+ArrowLeft")
    z, mean = tab.state()
    assert (mean - decoded(vae, z)).abs().max() < TOLERANCE
    assert (tab.pixels("#lines") != before).any()
    assert tab.page.locator("#gallery li").count() == 2
    assert tab.page.evaluate("window.hacked") is None


def frame():
    n = 30
    table = pd.DataFrame(
        {
            "length (mm)": torch.linspace(10.5, 20, n).tolist(),
            HOSTILE: [["owl", HOSTILE, "crow"][i % 3] for i in range(n)],
            "male": [i % 2 == 0 for i in range(n)],
            "eggs": [i % 5 * 3 for i in range(n)],
            "health": pd.Categorical(
                [["poor", "fair", "good"][i % 3] for i in range(n)], ["poor", "fair", "good"], ordered=True
            ),
        }
    )
    table.loc[::4, "length (mm)"] = None
    table.loc[1::4, HOSTILE] = None
    return table


def test_tables(open_page, tmp_path):
    table = Table.of(frame())
    x = table.tensor(frame())
    vae = vivid(VAE(
        priors.StandardNormal(4),
        likelihoods.Incomplete(table.likelihood(nn.mlp(4, [8], table.num_parameters))),
        posteriors.Normal(table.encoder(nn.mlp(table.num_features, [8], 8))),
    ))  # fmt: skip
    path = write(vae, x, tmp_path, "table", table=table, title=HOSTILE, subtitle=HOSTILE, labels=[HOSTILE, "b"] * 15)
    tab = open_page(path)
    assert tab.page.evaluate("window.hacked") is None
    assert tab.page.title().split() == HOSTILE.split()
    assert tab.page.locator("#legend button span").first.text_content() == HOSTILE
    names = tab.page.locator("#pair tbody th").all_text_contents()
    assert names == list(frame())
    tab.page.evaluate("explorer.choose(0)")
    z, mean = tab.state()
    with torch.no_grad():
        p = vae.likelihood.likelihood(z[None]).base_dist
    assert (mean - p.mean[0]).abs().max() < TOLERANCE * p.mean.abs().max()
    rows = [row.locator("td").all_text_contents() for row in tab.page.locator("#pair tbody tr").all()]
    assert [row[0] for row in rows] == ["missing", "owl", "true", "0", "poor"] or [row[0] for row in rows][1:] == [
        "owl",
        "True",
        "0",
        "poor",
    ]
    for i, categories in ((1, table.kept[1].categories), (4, table.kept[4].categories)):
        probs = p.columns[i].probs[0]
        assert rows[i][1:] == [categories[probs.argmax()], f"{round(100 * probs.max().item())} %"]
    assert float(rows[0][2].lstrip("± ").replace(",", "")) == pytest.approx(p.columns[0].stddev.item(), rel=1e-3)


def test_columns_without_names(open_page, tmp_path):
    kinds = [likelihoods.columns.Categorical(3), likelihoods.columns.Binary(), likelihoods.columns.Real()]
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Columns(nn.mlp(2, [8], 6), kinds),
        posteriors.Normal(nn.ColumnFeatures(nn.mlp(8, [8], 4), kinds)),
    ).eval()
    tab = open_page(write(vae, vae.sample(9), tmp_path, "columns"))
    z, _ = tab.state()
    with torch.no_grad():
        category, binary, real = vae.likelihood(z[None]).base_dist.columns
    rows = [row.locator("td").all_text_contents()[1:] for row in tab.page.locator("#pair tbody tr").all()]
    best = category.probs[0].argmax().item()
    assert rows[0] == [str(best), f"{round(100 * category.probs[0, best].item())} %"]
    share = binary.probs[0].item()
    assert rows[1] == [str(int(share >= 0.5)), f"{round(100 * max(share, 1 - share))} %"]
    assert float(rows[2][1].lstrip("± ")) == pytest.approx(real.stddev.item(), rel=1e-3)


def test_the_lowest_log_p_of_x(open_page, tmp_path):
    vae = image_vae(2)
    x = vae.sample(30)
    known = evidence.importance(vae.model, vae.guide, x, num_samples=50, progress=False)
    known = replace(known, error=torch.where(torch.arange(30) % 2 == 0, 0.25, torch.inf))
    tab = open_page(write(vae, x, tmp_path, "lowest", log_prob=known, lowest=5))
    texts = tab.page.locator("#gallery li").all_inner_texts()
    order = known.log_prob.argsort()[:5].tolist()
    assert [int(re.search(r"datapoint (\d+)", text).group(1)) for text in texts] == order
    for row, text in zip(order, texts, strict=True):
        value = f"{known.log_prob[row]:.2f}".replace("-", "\u2212")
        assert (f"{value} ± {known.error[row]:.2f}" if row % 2 == 0 else f"at least {value}") in text
    tab.page.locator("#gallery button").nth(1).click()
    assert (tab.state()[0] - vae.encode(x[order[1] : order[1] + 1])[0]).abs().max() < 1e-6


def test_what_it_finds_lowest_by_itself(tmp_path):
    vae = small_vae().eval()
    x = vae.sample(40)
    text = write(vae, x, tmp_path, "own", lowest=4).read_text()
    found = re.search(r'"lowest": \{"points": (\[[^]]*\])', text).group(1)
    best = evidence.estimate(vae.model, vae.guide, x, progress=False)
    found = [int(each) for each in found.strip("[]").split(",")]
    # Up to the errors of both estimates.
    worst = best.log_prob.sort().values[:4]
    assert (best.log_prob[found] - worst).abs().max() <= 2 * best.error.max()


def test_conditions(open_page, tmp_path):
    event = (1, 4, 4)
    vae = ConditionalVAE(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(nn.mlp(2 + 3, [8], event)),
        posteriors.Normal(nn.mlp(16 + 3, [8], 4)),
        conditions=3,
    ).eval()
    labels = torch.arange(24) % 3
    y = torch.nn.functional.one_hot(labels).float()
    x = vae.sample(y)
    path = write(vae, x, tmp_path, "conditions", conditions=y, labels=labels, names_of_labels=["a", "b", "c"], lowest=1)
    tab = open_page(path)
    tab.page.evaluate("explorer.choose(3)")
    tab.page.get_by_label("Condition y").select_option(label="c")
    z, mean = tab.state()
    with torch.no_grad():
        expected = vae.likelihood(torch.cat([z, torch.tensor([0.0, 0.0, 1.0])])[None]).mean.flatten()
    assert (mean - expected).abs().max() < TOLERANCE


def test_latents_on_a_sphere(open_page, tmp_path):
    event = (1, 4, 4)
    vae = VAE(
        priors.HypersphericalUniform(3),
        likelihoods.Bernoulli(nn.mlp(3, [8], event)),
        posteriors.ProjectedNormal(nn.mlp(event, [8], 3)),
    ).eval()
    tab = open_page(write(vae, vae.sample(20), tmp_path, "sphere"))
    tab.page.locator("#map").focus()
    tab.page.keyboard.press("Shift+ArrowLeft")
    z, mean = tab.state()
    assert z.norm().item() == pytest.approx(1, abs=1e-5)
    assert (mean - decoded(vae, z)).abs().max() < TOLERANCE


class _UMAP:
    """In place of UMAP, which compiles for half a minute: a stretched plane."""

    def __init__(self, **options):
        assert options["n_neighbors"] == 15
        assert options["random_state"] == 0

    def fit_transform(self, z):
        return 3 * z[:, :2]


def test_umap(open_page, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=_UMAP))
    vae = image_vae(5)
    tab = open_page(write(vae, vae.sample(20), tmp_path, "umap", method="umap"))
    # The place of a datapoint is decoded as its code, and the code has its place.
    place, code = tab.page.evaluate(
        "[Array.from(explorer.positions.subarray(0, 2)), Array.from(explorer.codes.subarray(0, 5))]"
    )
    assert place == pytest.approx([3 * each for each in code[:2]])
    found = tab.page.evaluate("(place) => Array.from(explorer.latentAt(place, explorer.state.z))", place)
    assert found == pytest.approx(code, abs=1e-3)
    found = tab.page.evaluate("(code) => Array.from(explorer.positionOf(code))", code)
    assert found == pytest.approx(place, abs=1e-2)


def test_umap_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    vae = image_vae(5)
    with pytest.raises(ImportError, match=r"pyro-vae\[umap\]"):
        write(vae, vae.sample(20), tmp_path, "umap", method="umap")


def test_one_latent_and_one_datapoint(open_page, tmp_path):
    vae = image_vae(1)
    tab = open_page(write(vae, vae.sample(1), tmp_path, "one"))
    tab.page.locator("#map").focus()
    tab.page.keyboard.press("ArrowRight")
    z, mean = tab.state()
    assert (mean - decoded(vae, z)).abs().max() < TOLERANCE


def test_gaps_in_images_are_shown(open_page, tmp_path):
    event = (1, 5, 5)
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Incomplete(likelihoods.Normal(nn.mlp(2, [8], event), 0.3)),
        posteriors.Normal(nn.FillMissing(nn.mlp(event, [8], 4))),
    ).eval()
    x = vae.sample(10)
    x[:, :, 1, 2:4] = torch.nan
    tab = open_page(write(vae, x, tmp_path, "gaps"))
    alpha = tab.pixels("#pair figure:last-child canvas")[..., 3]
    assert torch.equal(alpha == 0, x[0, 0].isnan())
    assert (tab.pixels("#pair canvas")[..., 3] == 255).all()


def test_the_page_may_load_and_run_nothing_else(open_page, digits):
    tab = open_page(digits[0])
    policy = tab.page.locator("meta[http-equiv]").get_attribute("content")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    refused = tab.page.evaluate("fetch('https://example.com').then(() => false, () => true)")
    ran = tab.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.hacked = 1";
          document.body.append(script);
          return window.hacked === 1;
        }"""
    )
    assert refused
    assert not ran
    tab.problems.clear()  # the two refusals


def test_texts_cannot_become_code():
    text = html_page(HOSTILE, {"labels": [HOSTILE]}, "")
    assert text.count("<script") == text.count("</script>") == 3
    assert "<img" not in text
    assert "\u2028" not in text.split('id="content">')[1].split("</script>")[0]


# Parts of the page, without a browser ---------------------------------------------------------------------------------


# From linear RGB to what eyes with normal vision, and without one kind of cones, see (Machado et al. 2009).
VISION = {
    "normal": torch.eye(3),
    "deuteranopia": torch.tensor([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "protanopia": torch.tensor([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "tritanopia": torch.tensor([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}


def linear(colour):
    levels = torch.tensor([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return torch.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    to_xyz = torch.tensor([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = rgb.clamp(0, 1) @ to_xyz.T / torch.tensor([0.9505, 1, 1.089])
    x, y, z = torch.where(xyz > 0.008856, xyz ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_of_labels_can_be_told_apart(theme):
    palette = re.findall("#[0-9a-f]{6}", re.search(rf"{theme}: \[(.*?)\]", asset("marks.js")).group(1))
    colours = torch.stack([linear(colour) for colour in palette])
    assert len(colours) == 10
    for matrix in VISION.values():
        assert torch.pdist(lab(colours @ matrix.T)).min() > 12
    surface = linear(re.findall(r"--surface: (#[0-9a-f]{6})", asset("style.css"))[theme == "dark"])
    luminance = torch.tensor([0.2126, 0.7152, 0.0722])
    contrast = (colours @ luminance + 0.05) / (surface @ luminance + 0.05)
    assert torch.maximum(contrast, 1 / contrast).min() > 2.95


def test_thumbnails_are_the_images():
    x = torch.randint(0, 256, (7, 3, 4, 5)) / 255
    made = thumbnails(x)
    sprite = torch.tensor(list(Image.open(io.BytesIO(made.png)).tobytes())).reshape(-1, made.columns * 5, 3)
    for i in range(7):
        top, left = i // made.columns * 4, i % made.columns * 5
        assert torch.equal(sprite[top : top + 4, left : left + 5].permute(2, 0, 1), (255 * x[i]).round().long())


def test_many_large_images_become_small():
    made = thumbnails(torch.full((40, 1, 700, 600), 0.5))
    assert 40 * made.height * made.width <= 6_100_000
    assert made.height / made.width == pytest.approx(700 / 600, rel=0.01)


def test_principal_components():
    z = torch.randn(200, 5) @ torch.diag(torch.tensor([3.0, 0.1, 2.0, 0.5, 0.2]))
    found = latent_map(z, "pca")
    values = torch.linalg.eigvalsh(z.double().T.cov()).flip(0)
    assert torch.allclose(found.positions.var(0), values[:2])
    assert torch.allclose(torch.tensor(found.explained).double(), values[:2] / values.sum())
    two = latent_map(z[:, :2], "pca")
    assert torch.equal(two.positions, z[:, :2].double())


@pytest.mark.parametrize(
    ("labels", "names", "numbers", "expected"),
    [
        (["b", "a", "b"], None, [1, 0, 1], ["a", "b"]),
        (torch.tensor([7, 3, 7]), None, [1, 0, 1], ["3", "7"]),
        ([0, 1, -1], ["x", "y"], [0, 1, 2], ["x", "y", "missing"]),
        ([1.5, None, 1.5], None, [0, 1, 0], ["1.5", "None"]),
    ],
)
def test_labels(labels, names, numbers, expected):
    index, found = label_names(labels, names, 3)
    assert (index.tolist(), found) == (numbers, expected)


class _Sine(torch.nn.Module):
    def forward(self, z):
        return torch.special.bessel_j0(z)


def refused():
    vae, x = small_vae(), torch.zeros(3, 1, 4, 4)
    image = (1, 4, 4)
    odd = VAE(
        priors.StandardNormal(2),
        likelihoods.Normal(torch.nn.Sequential(_Sine(), nn.mlp(2, [], image)), 1.0),
        posteriors.Normal(nn.mlp(image, [], 4)),
    )
    return {
        "another model": (torch.nn.Linear(2, 2), x, {}, TypeError, "Linear"),
        "no conditions": (vae, x, {"conditions": torch.zeros(3, 2)}, ValueError, "no conditions"),
        "an operator": (odd, x, {}, ValueError, "bessel_j0"),
        "labels": (vae, x, {"labels": [0, 1]}, ValueError, "labels has 2 values"),
        "names of labels": (vae, x, {"labels": [0, 1, 5], "names_of_labels": ["a", "b"]}, ValueError, "value 5"),
        "method": (vae, x, {"method": "tsne"}, ValueError, "'tsne'"),
        "points": (vae, x, {"points": 0}, ValueError, "points is 0"),
        "data": (vae, x[:, :, :2], {}, ValueError, "x has shape"),
        "log_prob": (vae, x, {"log_prob": 3.0}, TypeError, "evidence.estimate"),
        "rows": (vae, x, {"rows": [1]}, ValueError, "rows has shape"),
        "table": (vae, x, {"table": Table.of(frame())}, ValueError, "5 columns"),
    }


@pytest.mark.parametrize("name", refused())
def test_what_it_refuses(name, tmp_path):
    vae, x, options, kind, message = refused()[name]
    with pytest.raises(kind, match=re.escape(message)):
        write(vae.eval(), x, tmp_path, "refused", **options)
    assert list(tmp_path.iterdir()) == []


def test_where_it_cannot_write(tmp_path):
    vae, x = small_vae(), torch.zeros(3, 1, 4, 4)
    with pytest.raises(ValueError, match=r"expected a file \.html"):
        explorer.write(vae, x, tmp_path / "page.htm")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write to the folder"):
        explorer.write(vae, x, tmp_path / "file" / "page.html", lowest=0)
    assert explorer.write(vae, x, tmp_path / "new" / "page.html", lowest=0).exists()  # the folder is made


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_writes_the_page_of_a_run(capsys, open_page, tmp_path):
    frame().rename(columns=str).to_csv(tmp_path / "birds.csv", index=False)
    small = ["--latent-dim", "2", "--epochs", "1", "--compile", "none", "--no-tensorboard"]
    run(capsys, "train", tmp_path / "run", "--data", tmp_path / "birds.csv", "--labels", "health", *small)
    text = run(
        capsys, "explore", tmp_path / "run", "--split", "all", "--lowest", "0", "--out", tmp_path / "command.html"
    )
    assert "open it in a browser" in text
    tab = open_page(tmp_path / "command.html")
    assert tab.page.locator("h1").inner_text() == "run"
    assert set(tab.page.locator("#legend button > span:nth-child(2)").all_inner_texts()) == {"poor", "fair", "good"}
    assert "all data of birds.csv" in tab.page.locator("#subtitle").inner_text()
    assert "--out is" in error(capsys, "explore", tmp_path / "run", "--out", tmp_path / "page.pdf")
    (tmp_path / "birds.csv").unlink()
    assert "birds.csv" in error(capsys, "explore", tmp_path / "run", "--lowest", "0")
    assert "choose the data with --data" not in error(capsys, "explore", tmp_path / "run", "--lowest", "0")


def test_the_code_in_the_docs_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).resolve().parents[1] / "docs" / "explorer.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(code, "explorer.md", "exec"), {})
    assert (tmp_path / "explorer.html").stat().st_size < 8e6


def test_base64_of_a_page_is_plain(digits):
    text = digits[0].read_text()
    arrays = re.search(r'id="arrays">([^<]*)<', text).group(1)
    assert len(base64.b64decode(arrays, validate=True)) % 4 == 0
