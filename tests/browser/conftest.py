"""A real browser on the built book, which can reach no host but the local server."""

import functools
import http.server
import shutil
import threading

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
# Nothing outside is found, and a browser of our own asks for nothing there either.
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="there is no Chromium on this machine"))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # one connection for many files

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


@pytest.fixture(scope="session")
def context(browser):
    """One visitor, on a desktop in the light, who has been on the pages before."""
    return browser.new_context(
        viewport={"width": 1400, "height": 900}, color_scheme="light", reduced_motion="reduce"
    )


@pytest.fixture
def visit(context, server):
    """A function that opens a page of the book and returns it, loaded.

    The page keeps what went wrong in it: ``problems`` (console errors, exceptions, answers that are
    errors) and ``foreign`` (requests to any other host).
    """

    def open_page(name):
        page = context.new_page()
        page.problems, page.foreign = [], []

        def asked(request):
            if not request.url.startswith((server, "data:", "blob:")):
                page.foreign.append(request.url)

        def heard(message):
            if message.type == "error":
                page.problems.append(message.text)

        def answered(response):
            if response.status >= 400:
                page.problems.append(f"{response.status} {response.url}")

        page.on("request", asked)
        page.on("console", heard)
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("response", answered)
        page.goto(server + name)
        return page

    yield open_page
    for page in context.pages:
        page.close()
