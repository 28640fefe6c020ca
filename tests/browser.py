"""A headless Chromium for tests of pages."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Where screenshots are kept, for people; git ignores it.
PICTURES = Path(__file__).resolve().parents[1] / "build" / "explorer"


def find_chromium() -> str | None:
    """The program ``$PYRO_VAE_CHROMIUM``, or one on the path, or the one that Playwright has installed."""
    chosen = os.environ.get("PYRO_VAE_CHROMIUM")
    found = chosen or next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def wait_until(page, expression: str) -> None:
    """Waits until an expression of JavaScript is true in the page.

    Playwright's ``wait_for_function`` evaluates it by ``eval`` unless it is true at once. The policy of our pages
    forbids that.
    """
    for _ in range(3000):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise TimeoutError(f"not true after a minute: {expression}")


@pytest.fixture(scope="module")
def browser():
    """One browser for the tests of a module; they are skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium: install it, or set PYRO_VAE_CHROMIUM to its path")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()
