"""The page that runs an exported network, in a browser."""

from __future__ import annotations

import functools
import json
import os
import queue
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from cdkd_ext.cli import main
from cdkd_ext.deployment import write_web_page
from cdkd_ext.deployment.crop_decoder import CropDecoder
from cdkd_ext.deployment.export import described
from cdkd_ext.deployment.onnx_graph import set_metadata, write_onnx
from cdkd_ext.deployment.web import RUNTIME_FILES
from cdkd_ext.errors import InputError
from cdkd_ext.inference import Predictor
from cdkd_ext.joints import COCO_JOINTS

pytestmark = pytest.mark.usefixtures("few_layers")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
# the folder dist of the npm package, which `make web-runtime` gets
GOT = Path(__file__).resolve().parents[2] / "build/web/package/dist"
RUNTIME = os.environ.get("ONNXRUNTIME_WEB") or (str(GOT) if GOT.is_dir() else None)
BOXES = [[10.0, 5.0, 60.0, 90.0], [40.0, 20.0, 100.0, 80.0], [-20.0, 60.0, 50.0, 100.0]]


@pytest.fixture(scope="module")
def exported(decided_network, tmp_path_factory):
    network = decided_network(COCO_JOINTS, "simcc", split_ratio=2.0)
    path = tmp_path_factory.mktemp("model") / "student.onnx"
    metadata = described(network.spec, precision="float32", flip_test=False)
    write_onnx(CropDecoder(network), path, metadata=metadata)
    return path, metadata


@pytest.fixture(scope="module", params=[False, True], ids=["biased", "unbiased"])
def model(request, exported):
    import onnx

    path, metadata = exported
    graph = onnx.load(path)
    set_metadata(graph, metadata | {"unbiased_crop": json.dumps(request.param)})
    target = path.with_name(f"unbiased_{request.param}.onnx")
    onnx.save(graph, target)
    return target


@pytest.fixture
def runtime(tmp_path):
    """Files of the runtime's names."""
    folder = tmp_path / "dist"
    folder.mkdir()
    for name in RUNTIME_FILES:
        (folder / name).write_text(name)
    return folder


def test_the_folder_has_all_that_the_page_asks_for(model, runtime, tmp_path):
    page = write_web_page(model, tmp_path / "site", runtime)
    assert page == tmp_path / "site/index.html"
    assert sorted(path.name for path in page.parent.iterdir()) == sorted(
        [*RUNTIME_FILES, "index.html", "model.onnx"]
    )
    text = page.read_text()
    assert '"DESCRIPTION"' not in text and '"left_knee"' in text and "://" not in text
    assert (page.parent / "model.onnx").read_bytes() == model.read_bytes()


def test_mistakes_are_named(model, runtime, tmp_path, make_graph, capsys):
    with pytest.raises(
        InputError, match="web_runtime: expected the folder dist of the npm package onnxruntime-web"
    ):
        write_web_page(model, tmp_path / "site", None)
    with pytest.raises(InputError, match="expected one of `cdkd export`"):
        write_web_page(make_graph(), tmp_path / "site", runtime)
    with pytest.raises(InputError, match="web: expected a new or empty folder"):
        write_web_page(model, runtime, runtime)
    # not after minutes of exporting
    assert main(["export", "none", f"--web={runtime}", f"--web_runtime={runtime}"]) == 2
    assert "web: expected a new or empty folder" in capsys.readouterr().err
    (runtime / RUNTIME_FILES[0]).unlink()
    with pytest.raises(InputError, match=f"without {RUNTIME_FILES[0]}"):
        write_web_page(model, tmp_path / "site", runtime)
    assert not (tmp_path / "site").exists()


class Answers(SimpleHTTPRequestHandler):
    """Gives files, and takes what the page found."""

    def __init__(self, *arguments, answers, **options):
        self.answers = answers
        super().__init__(*arguments, **options)

    def do_POST(self):
        self.answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        pass


# opens an image, asks for the boxes, and then presses the button
_ASK = """
<script type="module">
const tell = (found) => fetch("/answer", { method: "POST", body: JSON.stringify(found) });
addEventListener("unhandledrejection", (event) => tell({ error: String(event.reason) }));
await poses.session;
await poses.open(await (await fetch("photo.png")).blob());
const stage = document.getElementById("stage"), plain = stage.toDataURL();
const drawn = await poses.predict(stage.getContext("2d").getImageData(0, 0, stage.width, stage.height), BOXES);
document.getElementById("whole").click();
while (!document.querySelector("#joints tbody tr")) await new Promise((done) => setTimeout(done, 20));
const cells = [...document.querySelectorAll("#joints tbody tr")].map((row) => [...row.cells].map((cell) => cell.textContent));
const loaded = performance.getEntriesByType("resource").map((entry) => new URL(entry.name).origin);
tell({ drawn, cells, changed: stage.toDataURL() !== plain, status: document.getElementById("status").textContent,
       elsewhere: loaded.filter((origin) => origin !== location.origin) });
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.skipif(RUNTIME is None, reason="needs onnxruntime-web (`make web-runtime`)")
def test_a_browser_finds_what_python_finds(model, tmp_path):
    page = write_web_page(model, tmp_path / "site", RUNTIME)
    page.write_text(page.read_text().replace("</body>", _ASK.replace("BOXES", json.dumps(BOXES)) + "</body>"))
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    photo = np.asarray(cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC))
    cv2.imwrite(str(page.parent / "photo.png"), photo[..., ::-1])
    found = asked(page.parent, tmp_path / "profile")
    assert "error" not in found, found
    expected = Predictor.load(model)(photo, BOXES)
    points = np.array([[[joint["x"], joint["y"]] for joint in person] for person in found["drawn"]])
    scores = np.array([[joint["score"] for joint in person] for person in found["drawn"]])
    assert points.shape == expected.keypoints.shape
    # the same means, with roundings of their own, which may decide between two bins
    away = np.linalg.norm(points - expected.keypoints, axis=-1)
    assert np.median(away) < 1e-3 and (away > 0.1).mean() < 0.2
    np.testing.assert_allclose(scores, expected.scores, atol=0.05)
    whole = Predictor.load(model)(photo, [(0, 0, 160, 120)])
    assert [row[1] for row in found["cells"]] == list(COCO_JOINTS.names)
    near = [
        abs(float(row[2]) - x) < 0.2 for row, (x, _) in zip(found["cells"], whole.keypoints[0], strict=True)
    ]
    assert np.mean(near) > 0.8 and found["changed"] and found["status"].startswith("1 person")
    assert found["elsewhere"] == []


def asked(folder: Path, profile: Path) -> dict:
    """What the page in a folder tells the server that gives it."""
    answers: queue.Queue[dict] = queue.Queue()
    handler = functools.partial(Answers, answers=answers, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/index.html"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        browser = subprocess.Popen(
            [CHROMIUM, *options, f"--user-data-dir={profile}", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return answers.get(timeout=90)
        finally:
            browser.terminate()
            browser.wait(30)
            server.shutdown()
