from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.browser import CHROMIUM, open_page
from harness.model_server import CLASSES, Server, Store

pytest_plugins = ["harness.serving_fixtures"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def test_a_person_sees_the_classes_and_the_picture(
    server: Server, store: Store, tmp_path: Path, images: NDArray[np.uint8], picture: Callable[..., bytes]
) -> None:
    (tmp_path / "photo.png").write_bytes(picture(images[2]))
    (tmp_path / "broken.png").write_bytes(b"no image")
    expected = store.expected(1, images[2:3])[0]
    with open_page(f"http://127.0.0.1:{server.port}/", tmp_path / "profile", 375, 800) as page:
        page.wait_for("document.getElementById('model').textContent.includes('version 1, the champion: vit')")
        page.choose_file("#file", tmp_path / "photo.png")
        page.wait_for("document.body.dataset.done === 'yes'")
        rows = page.evaluate("[...document.querySelectorAll('li')].map((row) => row.innerText.split('\\n'))")
        assert [row[0] for row in rows] == [CLASSES[i] for i in np.argsort(-expected)]
        assert float(rows[0][-1].strip("%> ")) == pytest.approx(100 * expected.max(), abs=0.11)
        # The name of the third class is HTML, and must not have become any.
        assert page.evaluate("document.querySelectorAll('li img').length") == 0
        page.wait_for(
            "[...document.images].length === 2 && [...document.images].every((image) => image.naturalWidth > 0)"
        )
        caption = page.evaluate("document.querySelectorAll('figcaption')[1].textContent")
        assert "attention rollout" in caption
        assert "random order" in caption
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        page.choose_file("#file", tmp_path / "broken.png")
        page.wait_for("document.getElementById('status').textContent.includes('broken.png cannot be read')")
    requested = [
        event["params"]["request"]["url"] for event in page.events if event.get("method") == "Network.requestWillBeSent"
    ]
    assert requested
    assert all(url.startswith((f"http://127.0.0.1:{server.port}/", "data:", "blob:")) for url in requested)
    errors = [
        event["params"] for event in page.events
        if event.get("method") == "Runtime.exceptionThrown"
        or (event.get("method") == "Log.entryAdded" and "Security" in event["params"]["entry"]["text"])
    ]  # fmt: skip
    assert errors == []


# The colours of the text of an element and of what lies behind it, from 0 to 255.
COLOURS = """
[...document.querySelectorAll("h1, #model, #status, #drop, figcaption")].map((shown) =>
  [getComputedStyle(shown).color, getComputedStyle(document.body).backgroundColor].map((text) =>
    text.match(/[0-9]+/g).slice(0, 3).map(Number)))
"""


def luminance(colour: list[int]) -> float:
    """As WCAG defines it."""
    parts = [part / 255 for part in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_text_is_legible_in_both_colour_schemes(server: Server, tmp_path: Path) -> None:
    backgrounds = []
    with open_page(f"http://127.0.0.1:{server.port}/", tmp_path / "profile", 375, 800) as page:
        page.wait_for("document.getElementById('model').textContent.includes('version')")
        page.evaluate("showStatus('broken', true); byId('pictures').append(figure('', 'caption', ''))")
        for scheme in ("light", "dark"):
            page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            colours = page.evaluate(COLOURS)
            assert len(colours) == 5
            for pair in colours:
                low, high = sorted(map(luminance, pair))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, pair)
            backgrounds.append(luminance(colours[0][1]))
    assert backgrounds[0] > 0.9
    assert backgrounds[1] < 0.05
