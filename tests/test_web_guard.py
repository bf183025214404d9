import socket
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra `web` is not installed: pip install 'lfpc[web]'")

from asking_app import HOST, asked
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from lfpc.errors import ConfigError, PictureError
from lfpc.web.guard import ANSWER_HEADERS, file_within, guarded, refusal
from lfpc.web.serving import bound_socket, shared_files


def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse("written" if request.method == "PUT" else "read")


async def length(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


def broken(request: Request) -> PlainTextResponse:
    raise RuntimeError("a bug")


APP = guarded(
    Starlette(
        routes=[
            Route("/", echo, methods=["GET", "PUT"]),
            Route("/broken", broken),
            Route("/body", length, methods=["PUT"]),
            Mount("/shared", shared_files()),
        ]
    ),
    largest_body=100,
)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000"])
def test_host_of_this_machine_with_the_port_is_served(host):
    assert asked(APP, "GET", "/", headers={"host": host}).text == "read"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8001",
        "evil.example:8000",
        "evil.example",
        "",
        "127.0.0.1:8000.evil.example",
    ],
)
def test_any_other_host_is_refused_so_a_rebound_name_reads_nothing(host):
    answer = asked(APP, "GET", "/", headers={"host": host})
    assert answer.status_code == 403
    assert "127.0.0.1:8000 and localhost:8000" in answer.text


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://127.0.0.1:9000",
        "https://127.0.0.1:8000",
        "null",
        "",
        "http://127.0.0.1:8000.evil.example",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_page_of_another_origin_is_refused(method, origin):
    assert asked(APP, method, "/", headers={"origin": origin}).status_code == 403


def test_own_page_and_programs_may_write():
    assert (
        asked(
            APP, "PUT", "/", headers={"origin": f"http://{HOST}", "sec-fetch-site": "same-origin"}
        ).text
        == "written"
    )
    assert asked(APP, "PUT", "/", content=b"x").text == "written"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_site_embeds_or_writes_is_refused_but_a_link_may_be_followed(site):
    embedded = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
    followed = {"sec-fetch-site": site, "sec-fetch-mode": "navigate"}
    assert asked(APP, "GET", "/", headers=embedded).status_code == 403
    assert asked(APP, "GET", "/", headers=followed).status_code == 200
    assert (
        asked(APP, "PUT", "/", headers=followed).status_code == 403
    )  # a form that another page sent


def test_a_request_larger_than_allowed_or_without_an_end_is_refused():
    assert asked(APP, "PUT", "/", content=b"x" * 101).status_code == 413
    assert refusal("PUT", Headers({"host": HOST}), 8000)[0] == 411
    assert (
        refusal(
            "PUT",
            Headers({"host": HOST, "content-length": "5", "transfer-encoding": "chunked"}),
            8000,
        )[0]
        == 411
    )
    for nonsense in ("-1", "1e3", "²", "9" * 400):
        assert refusal("PUT", Headers({"host": HOST, "content-length": nonsense}), 8000)[0] == 413


def test_a_body_in_chunks_is_taken_up_to_the_same_size():
    async def chunks(count):
        for _ in range(count):
            yield b"x" * 10

    assert asked(APP, "PUT", "/body", content=chunks(10)).text == "100"
    answer = asked(APP, "PUT", "/body", content=chunks(11))
    assert (answer.status_code, answer.text) == (413, "a request has at most 100 bytes")


def test_a_refusal_has_openais_shape_where_programs_ask():
    answer = asked(APP, "POST", "/v1/chat/completions", headers={"host": "evil.example"})
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert error["message"].startswith("this server answers at 127.0.0.1:8000")
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, None)
    answer = asked(APP, "POST", "/v1/chat/completions", content=b"x" * 101)
    assert answer.json()["error"]["message"] == "a request has at most 100 bytes"


@pytest.mark.parametrize(
    ("path", "status"), [("/", 200), ("/nothing", 404), ("/broken", 500), ("/shared/web.css", 200)]
)
def test_every_answer_carries_the_content_policy(path, status):
    answer = asked(APP, "GET", path)
    assert answer.status_code == status
    assert {name: answer.headers[name] for name in ANSWER_HEADERS} == ANSWER_HEADERS
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert (
        "content-security-policy"
        in asked(APP, "GET", path, headers={"host": "evil.example"}).headers
    )


@pytest.mark.parametrize(
    "path",
    [
        "/shared/../guard.py",
        "/shared/%2e%2e/guard.py",
        "/shared/..%2fguard.py",
        "/shared//etc/passwd",
    ],
)
def test_shared_files_end_at_their_folder(path):
    assert asked(APP, "GET", path).status_code == 404


def test_file_outside_its_folder_is_refused_by_whatever_name(tmp_path: Path):
    inside = tmp_path / "data"
    outside = tmp_path / "elsewhere"
    inside.mkdir()
    outside.mkdir()
    (inside / "a.png").write_bytes(b"a")
    (outside / "b.png").write_bytes(b"b")
    (inside / "link.png").symlink_to(outside / "b.png")
    assert file_within(inside / "a.png", [inside]).read_bytes() == b"a"
    for name in (
        inside / "link.png",
        inside / ".." / "elsewhere" / "b.png",
        tmp_path / "data2" / "c.png",
    ):
        with pytest.raises(PictureError, match="is outside"):
            file_within(name, [inside])
    assert file_within(inside / "link.png", [inside, outside]).read_bytes() == b"b"


def test_server_listens_on_loopback_only_and_reports_a_taken_port():
    with bound_socket(0) as listening:
        host, port = listening.getsockname()
        assert host == "127.0.0.1"
        assert listening.family == socket.AF_INET
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 cannot be used"):
            bound_socket(port)
    with pytest.raises(ConfigError, match="port 70000"):
        bound_socket(70000)
