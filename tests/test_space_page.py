"""The page of examples/space as a visitor sees it: over HTTP, and in a browser that may not leave this machine."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ct_hf.tracking import VideoWriter


ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Runs the app as `python app.py` does, and writes down whom it talks to.
GUARDED = """
import runpy, socket, sys
connect = socket.socket.connect
def guarded(self, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        open("talked_to", "a").write(f"{address}\\n")
    return connect(self, address)
socket.socket.connect = guarded
look_up = socket.getaddrinfo
def looked_up(host, *rest, **more):
    if host not in (None, "127.0.0.1", "localhost", b"127.0.0.1", b"localhost"):
        open("talked_to", "a").write(f"{host}\\n")
    return look_up(host, *rest, **more)
socket.getaddrinfo = looked_up
sys.path.insert(0, ".")
runpy.run_path("app.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The app laid out as a Space has it, with what `make test` need not install; its address and its folder."""
    pytest.importorskip("gradio", reason="Gradio is not installed: pip install ct_hf[space]")
    folder = tmp_path_factory.mktemp("space")
    for file in (ROOT / "examples" / "space").glob("*.py"):
        shutil.copy(file, folder)
    shutil.copytree(ROOT / "ct_hf", folder / "ct_hf", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "examples" / "assets" / "teacher", folder / "teacher")
    (folder / "tmp").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "GRADIO_SERVER_PORT": str(port),
        "TMPDIR": str(folder / "tmp"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    for name in (
        "PYTHONPATH",
        "CT_HF_TRACKERS",
        "GRADIO_ANALYTICS_ENABLED",
        "GRADIO_TEMP_DIR",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        environment.pop(name, None)
    with (folder / "log").open("w") as log:
        app = subprocess.Popen([sys.executable, "-c", GUARDED], cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            if app.poll() is not None or "Running on local URL" in (folder / "log").read_text():
                break
            time.sleep(0.2)
        assert app.poll() is None and "Running" in (folder / "log").read_text(), (folder / "log").read_text()[-3000:]
        yield f"http://127.0.0.1:{port}/", folder
    finally:
        app.send_signal(signal.SIGTERM)
        try:
            app.wait(30)
        finally:
            app.kill()
    left = [path for path in (folder / "tmp").rglob("*") if path.is_file()]
    assert left == [], "files of visitors are left behind"
    assert not (folder / "talked_to").exists(), (folder / "talked_to").read_text()


@pytest.fixture(scope="module")
def client(served):
    from gradio_client import Client

    return Client(served[0], verbose=False, analytics_enabled=False)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Ten frames of a bright square that moves to the right by two pixels a frame."""
    path = tmp_path_factory.mktemp("video") / "walk.mp4"
    background = np.random.default_rng(0).integers(0, 120, (120, 160, 3), dtype=np.uint8)
    with VideoWriter(path, 25) as writer:
        for step in range(10):
            frame = background.copy()
            frame[40:70, 30 + 2 * step : 60 + 2 * step] = (250, 220, 40)
            writer.write(frame)
    return path


def test_a_program_gets_boxes_and_a_summary(client, video, served):
    from gradio_client import handle_file

    *_, summary, boxes, table = client.predict(handle_file(video), "30, 40, 30, 30", "teacher", api_name="/track")
    found = np.loadtxt(boxes, delimiter=",")
    assert found.shape == (10, 4)
    assert found[0].tolist() == [30, 40, 30, 30]
    assert len(Path(table).read_text().splitlines()) == 11
    assert re.search(r'class="speed">[\d.,]+</b> frames a second by teacher', summary)
    assert "clock: crop, forward pass and box" in summary
    assert "<svg" in summary
    folders = list((served[1] / "tmp").glob("ct_hf-space-*"))
    assert len(folders) == 2, "beside the sample's and Gradio's, a folder of the run outlives it"


@pytest.mark.parametrize(
    ("text", "tracker", "message"),
    [
        ("", "teacher", "There is no box yet"),
        ("500, 0, 10, 10", "teacher", "outside the frame of 160x120"),
        ("30, 40, 30, 30", "nobody/nothing", "nobody/nothing could not be fetched from the Hub"),
        ("30, 40, 30, 30", "<b>bold</b>", "&lt;b&gt;bold"),
    ],
)
def test_mistakes_are_explained(client, video, text, tracker, message):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=message):
        client.predict(handle_file(video), text, tracker, api_name="/track")


def test_what_is_no_video_is_explained(client, tmp_path):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    (tmp_path / "notes.mp4").write_text("no video" * 100)
    with pytest.raises(AppError, match=r"notes\.mp4 is not a video that can be read") as caught:
        client.predict(handle_file(tmp_path / "notes.mp4"), "1, 2, 30, 40", "teacher", api_name="/track")
    assert "/tmp" not in str(caught.value)


@pytest.fixture
def page(served):
    """The page in a headless browser of 400 pixels, such as a phone's, and what it asked other machines for."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
    )
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as drive:
        browser = drive.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 400, "height": 800})
        page.set_default_timeout(15_000)
        outside = []
        own = (served[0], "data:", "blob:")
        page.on("request", lambda request: request.url.startswith(own) or outside.append(request.url))
        page.goto(served[0])
        yield page
        browser.close()
    assert outside == []


def test_a_visitor_tracks_the_sample(page):
    """Takes the sample, clicks two corners, tracks, and sees video, curve and speed."""
    page.get_by_role("button", name="Use the rendered sample").click()
    page.get_by_text("Click two corners to draw another").wait_for()
    box = page.get_by_role("textbox", name="Box")
    given = [int(value) for value in box.input_value().split(",")]
    frame = page.locator("#frame img")
    page.wait_for_function("document.querySelector('#frame img').naturalWidth == 480")
    place = frame.bounding_box()
    scale = place["width"] / 480
    assert page.get_by_label("Clear").is_visible()
    assert not page.get_by_label("Trim video to selection").is_visible(), "it would fetch an encoder from elsewhere"
    for x, y, then in ((0, 0, "Now the opposite corner"), (1, 1, "Click two corners to draw another")):
        left, top = given[0] + x * given[2], given[1] + y * given[3]
        page.mouse.click(place["x"] + left * scale, place["y"] + top * scale)
        page.get_by_text(then).wait_for()
    clicked = [int(value) for value in box.input_value().split(",")]
    assert clicked == pytest.approx(given, abs=4)

    page.get_by_role("button", name="Track", exact=True).click()
    page.locator(".block.summary svg").wait_for(timeout=110_000)
    page.wait_for_function("document.querySelector('#tracked video')?.readyState >= 2", timeout=30_000)
    assert page.evaluate("document.querySelector('#tracked video').duration") == pytest.approx(150 / 30, abs=0.2)
    assert page.evaluate("document.querySelector('#tracked video').videoWidth") == 480
    assert float(page.locator(".block.summary .speed").inner_text().replace(",", "")) > 0
    assert re.search(r"150 frames, the target lost in \d+ of them", page.locator(".block.summary").inner_text())
    texts = page.locator(".block.summary svg text").all_text_contents()
    assert {"Score", "Frame", "lost"} <= {text.strip() for text in texts}
    assert page.evaluate("document.documentElement.scrollWidth") <= 400, "something is wider than the page"


def test_a_visitor_types_a_box_and_sees_what_is_wrong(page):
    page.get_by_role("button", name="Use the rendered sample").click()
    page.get_by_text("Click two corners to draw another").wait_for()
    box = page.get_by_role("textbox", name="Box")
    box.fill("10, 20, 30")
    page.get_by_text("must be four numbers").wait_for()
    box.fill("10, 20, 30, 40")
    page.get_by_text("30 × 40 pixels").wait_for()
    box.fill("900, 20, 30, 40")
    page.get_by_text("outside the frame of 480x360").wait_for()
    page.get_by_role("button", name="Track", exact=True).click()
    page.get_by_test_id("toast-body").get_by_text("outside the frame of 480x360").wait_for()


def test_a_visitor_uploads_videos(page, video, tmp_path):
    """One that is good, one that is none; of the first nothing is left then."""
    choose = page.locator("#video input[type=file]")
    choose.set_input_files(video)
    page.get_by_text("Click two opposite corners of the target").wait_for()
    page.wait_for_function("document.querySelector('#frame img').naturalWidth == 160")
    page.get_by_role("button", name="Track", exact=True).click()
    page.get_by_test_id("toast-body").get_by_text("There is no box yet").wait_for()
    page.locator("#video").get_by_label("Clear").click()
    page.locator("#frame").wait_for(state="hidden")
    (tmp_path / "notes.mp4").write_text("no video" * 100)
    choose.set_input_files(tmp_path / "notes.mp4")
    page.get_by_test_id("toast-body").get_by_text("notes.mp4 is not a video that can be read").wait_for()
    assert not page.locator("#frame").is_visible()
