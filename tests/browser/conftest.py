"""A real browser on the built book, with every host but the local server refused."""

import functools
import http.server
import shutil
import threading
from contextlib import contextmanager

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
# A browser of our own talks to nobody either: no updates, no translation service.
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
DESKTOP = {"width": 1400, "height": 900}
PHONE = {"width": 390, "height": 844}


def pytest_collection_modifyitems(items):
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="there is no Chromium on this machine"))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def server(book):
    """The address at which the book is served on this machine."""
    handler = functools.partial(_Quiet, directory=book)
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as at:
        threading.Thread(target=at.serve_forever, daemon=True).start()
        yield f"http://localhost:{at.server_port}/"
        at.shutdown()


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def visit(browser, server):
    """A context manager that opens a page of the book and yields it, fully loaded.

    The page keeps what went wrong in it: ``problems`` (console errors, exceptions, answers that are
    errors) and ``foreign`` (requests to any other host, all of them refused).
    """

    @contextmanager
    def open_page(name, scheme="light", phone=False):
        context = browser.new_context(
            viewport=PHONE if phone else DESKTOP, color_scheme=scheme, reduced_motion="reduce"
        )
        page = context.new_page()
        page.problems, page.foreign = [], []

        def answer(route):
            address = route.request.url
            if address.startswith((server, "data:", "blob:")):
                route.continue_()
            else:
                page.foreign.append(address)
                route.abort()

        def heard(message):
            if message.type == "error":
                page.problems.append(message.text)

        def answered(response):
            if response.status >= 400:
                page.problems.append(f"{response.status} {response.url}")

        context.route("**/*", answer)
        page.on("console", heard)
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("response", answered)
        page.goto(server + name)
        page.wait_for_load_state("networkidle")
        widgets = page.locator('script[type="application/vnd.jupyter.widget-view+json"]')
        if widgets.count():
            page.wait_for_selector(".widget-subarea .jupyter-widgets")
            page.wait_for_timeout(300)  # the last pictures are put in place
        yield page
        context.close()

    return open_page
