# SPDX-License-Identifier: Apache-2.0
"""A console with a tracker behind it, and browsers in front."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from console_harness import Camera, Console
    from played_console import PlayedConsole
    from playwright.sync_api import Browser, Page
    from tracker_harness import Tracker

sys.path.insert(0, str(Path(__file__).parent))  # for console_harness

SCREENSHOTS = os.environ.get("LAZYXMEM_SCREENSHOTS")
"""A folder to put pictures of the page into."""


@pytest.fixture(scope="module")
def answering(ros: None, weights: Path, probe: Any) -> Iterator[Tracker]:
    """A tracker that asks when it is told to, and gives people time."""
    from tracker_harness import Tracker

    made = Tracker(
        probe,
        weights,
        "/console_test",
        correction_horizon=60.0,
        history_time=60.0,
        max_open_requests=1,
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def console(answering: Tracker) -> Iterator[Console]:
    """The console of that tracker."""
    from console_harness import Console

    made = Console([answering.name])
    yield made
    made.close()


@pytest.fixture
def camera(answering: Tracker) -> Iterator[Camera]:
    """Shows the tracker, as if it had just started, the scene at an even pace."""
    from console_harness import Camera

    answering.reset()
    assert answering.set(request_timeout=60.0, max_open_requests=1) == ""
    made = Camera(answering)
    yield made
    made.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of a module; meanwhile a loop of asyncio runs in their thread."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright (requirements-dev)")
    from console_harness import PATIENCE_MS

    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs a browser: sudo apt install chromium")
    # The browser's own sandbox does not work for root, nor in most containers.
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    api.expect.set_options(timeout=PATIENCE_MS)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core, which looks for what keeps people from using a page."""
    path = Path(__file__).parents[3] / "build" / "axe-core" / "axe.min.js"
    if not path.is_file():
        pytest.skip("needs build/axe-core/axe.min.js, which `make setup-dev` fetches by npm")
    return path.read_text(encoding="utf-8")


@pytest.fixture
def played(chromium: Browser) -> Iterator[PlayedConsole]:
    """A page whose console the test plays; what it complains about fails the test."""
    from console_harness import PATIENCE_MS
    from played_console import PlayedConsole

    faults: list[str] = []
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield PlayedConsole(page)
    context.close()
    assert not faults


@pytest.fixture
def open_page(chromium: Browser, console: Console) -> Iterator[Callable[..., Page]]:
    """Opens the console in a browser of its own; what a page complains about fails the test."""
    from console_harness import PATIENCE_MS

    contexts: list[Any] = []
    faults: list[str] = []

    def open_one(url: str = "", *, name: str = "", **options: Any) -> Page:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        if name:
            context.add_init_script(f"localStorage.setItem('name', '{name}')")
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(url or console.url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not faults
