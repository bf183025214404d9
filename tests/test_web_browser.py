"""What only a browser can tell of the guard: the content policy holds in it, and Ctrl-C ends a
server that a page is open on."""

import sys

import pytest
from browser import open_page, started_server

pytestmark = pytest.mark.browser
pytest.importorskip("starlette", reason="the extra `web` is not installed: pip install 'lfpc[web]'")

APP = """
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from lfpc.web.serving import serve, shared_files

PAGE = '''<!doctype html><title>before</title><link rel=icon href=/shared/icon.svg>
<link rel=stylesheet href=/shared/report.css><link rel=stylesheet href=/shared/web.css>
<script>document.title = "a script ran"</script>
<p onclick="document.title = 'a handler ran'">text</p><button class=main>go</button>'''
routes = [Route("/", lambda request: HTMLResponse(PAGE)), Mount("/shared", shared_files())]
serve(Starlette(routes=routes), "page")
print("ended")
"""


def test_script_within_a_page_does_not_run_and_ctrl_c_ends_the_server(browser):
    with (
        started_server([sys.executable, "-W", "error", "-c", APP]) as server,
        open_page(browser, expected=["Content Security Policy"]) as page,
    ):
        page.goto(server.address)
        page.click("p")
        assert page.title() == "before"
        assert (
            page.evaluate("getComputedStyle(document.querySelector('button')).borderRadius")
            == "6px"
        )  # web.css was loaded
        assert server.interrupt() == "ended\n"
        assert server.process.returncode == 0
