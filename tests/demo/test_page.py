"""The page in Chromium with a phone's window: it runs both files, shows what it found, and sends it back."""

import time

import pytest

from compressor.demo import results
from compressor.runtimes import environments
from compressor.runtimes.workers import chromium

pytestmark = [
    pytest.mark.web,
    pytest.mark.skipif(environments.locate("web") is None, reason="needs `compressor runtimes install web`"),
]
READY = """new Promise((ready) => {
  const ask = () => document.getElementById("start").disabled ? setTimeout(ask, 20) : ready();
  ask();
})"""
TEXTS = "[...document.querySelectorAll('section')].map((one) => one.innerText)"


def until(browser, expression, seconds=90.0):
    """The value of an expression as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := browser.evaluate(expression)):
        assert time.monotonic() < deadline, browser.evaluate("document.body.innerText")
        time.sleep(0.1)
    return found


def test_a_phone_runs_the_files_drives_the_step_file_and_sends_its_timing(server, folder, told):
    with chromium.Browser(chromium.find()) as browser:
        browser.open(server.address, width=390, height=844, scale=2, mobile=True)
        browser.evaluate(READY)
        browser.evaluate("document.getElementById('start').click()")
        status = "document.getElementById('status').textContent"
        until(browser, f"/^(done|failed)/.test({status})")
        assert browser.evaluate(status) == "done"
        whole, step = browser.evaluate(TEXTS)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 390
        browser.evaluate("[...document.querySelectorAll('button')].find((one) => one.textContent === 'Live').click()")
        until(browser, "/step [0-9]{2}/.test(document.querySelector('.live').innerText)")
        assert browser.evaluate("document.querySelectorAll('meter').length") == 3
    assert all("✓ agrees" in text and "✓ sent to the computer" in text for text in (whole, step))
    assert ("as fast as the original" in whole, "as fast as the original" in step) == (True, False)
    kept = results.read(folder)
    assert [one.file for one in kept] == ["model.onnx", "model.step.onnx"]
    assert told == kept
    assert all(one.largest_difference < 1e-5 and len(one.milliseconds) >= 5 for one in kept)
    assert (len(kept[0].original_milliseconds), kept[1].original_milliseconds) == (len(kept[0].milliseconds), [])
