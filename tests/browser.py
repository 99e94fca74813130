"""A headless Chromium, Debian's or another that is installed, in which pages are opened as a user opens them."""

import contextlib
import shutil

import pytest
from playwright.sync_api import sync_playwright


def find_chromium() -> str | None:
    """The browser's path."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


needs_chromium = pytest.mark.skipif(
    find_chromium() is None, reason="there is no Chromium; `make browser` installs Debian's"
)


class Tab:
    """
    A page, with what went wrong in it.

    Args:
        page (`playwright.sync_api.Page`): The page.
        allowed (`str`): What addresses begin with that it may ask for: there is no other internet.
    """

    def __init__(self, page, allowed: str):
        self.page = page
        self.errors: list[str] = []
        self.asked_elsewhere: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.route("**/*", lambda route: self._answer(route, allowed))

    def _answer(self, route, allowed: str):
        if route.request.url.startswith((allowed, "data:", "blob:")):
            route.continue_()
        else:
            self.asked_elsewhere.append(route.request.url)
            route.abort()


@contextlib.contextmanager
def opened(url: str, allowed: str | None = None, width: int = 1000, height: int = 760):
    """Context with a [`Tab`] in which `url` is open, and nothing but `allowed` (the url itself) can be reached."""
    with sync_playwright() as playwright:
        # Chromium has no sandbox for root, which is who runs in a container
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(20_000)
        tab = Tab(page, allowed if allowed is not None else url)
        page.goto(url)
        yield tab
        browser.close()
