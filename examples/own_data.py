"""Write a small real file of each kind, and print the commands that train on it, evaluate, sample, plot and score.

You learn what the command line takes, and what it makes of it: images, tables with gaps and categories, counts, series.

Run: python examples/own_data.py --out files, then the commands that it prints, in the folder "files".

You should see that each command says what the data are before it trains, and that samples look like the data.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import sparse
from sklearn import datasets
from sklearn.feature_extraction.image import extract_patches_2d

from pyro_vae.scripts import exit_at_interrupt
from pyro_vae.system.files import writable_folder

CELLS, GENES, TYPES = 1500, 40, 3


def digits(folder: Path) -> None:
    """Scikit-learn's 1797 handwritten digits, 8 x 8, as PNG files in a folder for each class."""
    images, labels = datasets.load_digits(return_X_y=True)
    for i, (image, label) in enumerate(zip(images.reshape(-1, 8, 8), labels, strict=True)):
        path = folder / "digits" / str(label) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).astype(np.uint8)).save(path)


def patches(folder: Path) -> None:
    """Pieces of scikit-learn's two photographs, 12 x 12, in colour: an array [n, height, width, channels] of bytes."""
    photos = datasets.load_sample_images().images
    pieces = [extract_patches_2d(photo, (12, 12), max_patches=1500, random_state=0) for photo in photos]
    np.save(folder / "patches.npy", np.concatenate(pieces))


def wine(folder: Path) -> None:
    """Scikit-learn's wines: 13 measurements and the cultivar, with a tenth of the values removed at random."""
    frame = datasets.load_wine(as_frame=True).frame
    frame["target"] = "cultivar " + frame["target"].astype(str)
    removed = np.random.default_rng(0).random((len(frame), 13)) < 0.1
    frame.iloc[:, :13] = frame.iloc[:, :13].mask(removed)
    frame.to_csv(folder / "wine.csv", index=False)


def cars(folder: Path) -> None:
    """406 cars of vega_datasets, with gaps, categories and names (``pip install vega_datasets``)."""
    from vega_datasets import data

    data.cars().assign(Year=lambda frame: frame["Year"].dt.year).to_csv(folder / "cars.csv", index=False)


def cells(folder: Path) -> None:
    """Simulated counts: cells of three types and of different sizes; each count is Poisson with a gamma rate."""
    random = np.random.default_rng(0)
    share = random.dirichlet(np.ones(GENES), TYPES)[random.integers(TYPES, size=CELLS)]
    size = random.lognormal(5, 0.5, CELLS)
    counts = random.poisson(random.gamma(2.0, size[:, None] * share / 2.0))
    sparse.save_npz(folder / "cells.npz", sparse.csr_matrix(counts))


def temperatures(folder: Path) -> None:
    """Hourly temperatures of a year in Fahrenheit: 365 days, 24 hours, 2 cities (``pip install vega_datasets``)."""
    import pandas as pd
    from vega_datasets import data

    hours = pd.date_range("2010-01-01", periods=365 * 24, freq="h")
    cities = [data.sf_temps, data.seattle_temps]
    columns = [city().drop_duplicates("date").set_index("date")["temp"].reindex(hours) for city in cities]
    np.save(folder / "temperatures.npy", np.stack(columns, axis=-1).reshape(365, 24, 2).astype(np.float32))


FILES: dict[str, Callable[[Path], None]] = {
    "digits": digits,
    "patches": patches,
    "wine": wine,
    "cars": cars,
    "cells": cells,
    "temperatures": temperatures,
}
COMMANDS = {
    "digits": """
pyro-vae train runs/digits --data digits --latent-dim 10 --epochs 60
pyro-vae evaluate runs/digits
pyro-vae sample runs/digits
pyro-vae plot runs/digits
pyro-vae score runs/digits
""",
    "patches": """
pyro-vae train runs/patches --data patches.npy --latent-dim 20 --epochs 40
pyro-vae evaluate runs/patches
pyro-vae sample runs/patches
pyro-vae plot runs/patches
pyro-vae score runs/patches
""",
    "wine": """
pyro-vae train runs/wine --data wine.csv --labels target
pyro-vae evaluate runs/wine
pyro-vae sample runs/wine --draws synthetic.csv --count 1000
pyro-vae plot runs/wine
pyro-vae score runs/wine
pyro-vae encode runs/wine
pyro-vae impute runs/wine --out filled.csv --intervals 0.9
""",
    "cars": """
pyro-vae train runs/cars --data cars.csv --column Name:drop
pyro-vae evaluate runs/cars
pyro-vae sample runs/cars --draws cars_synthetic.csv --count 1000
pyro-vae plot runs/cars
pyro-vae score runs/cars
pyro-vae impute runs/cars --out cars_filled.csv --intervals 0.9
""",
    "cells": """
pyro-vae train runs/cells --data cells.npz --latent-dim 4 --epochs 60
pyro-vae evaluate runs/cells
pyro-vae sample runs/cells --draws cells.npy --count 1000
pyro-vae plot runs/cells
pyro-vae score runs/cells
""",
    "temperatures": """
pyro-vae train runs/temperatures --data temperatures.npy --latent-dim 4 --epochs 200 --batch-size 32 --lr 0.01 --lr-decay linear
pyro-vae evaluate runs/temperatures
pyro-vae sample runs/temperatures --draws days.npy
pyro-vae plot runs/temperatures
pyro-vae score runs/temperatures
pyro-vae impute runs/temperatures --out days_filled.npy
""",  # noqa: E501
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("files"), help="folder for the files")
    parser.add_argument("--only", nargs="+", choices=FILES, default=list(FILES), help="some of them")
    args = parser.parse_args()
    out = writable_folder(args.out)
    for name in args.only:
        try:
            FILES[name](out)
        except ModuleNotFoundError as missing:
            print(f"\n# {name} needs another package: pip install {missing.name}")
            continue
        print(f"\n# {FILES[name].__doc__}{COMMANDS[name]}", end="")


if __name__ == "__main__":
    exit_at_interrupt(main)
