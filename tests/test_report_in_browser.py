"""The page in headless Chromium: on a phone and a desktop, light and dark, without a script, a request or an error."""

import itertools
import json
import shutil
import subprocess
import time

import pytest
from test_report import made_up
from websockets.sync.client import connect

from algospace import report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found; on Debian: apt-get install chromium")
LIMIT = 60  # seconds that the browser may take to start or to answer
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Texts whose contrast with the page, or with the nearest background behind them, is under WCAG's 4.5.
FAINT = """(() => {
  const channel = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const ground = node => {
    for (; node; node = node.parentElement) {
      const found = parts(getComputedStyle(node).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('p, th, td, dt, dd, small, a, li, h1, h2, h3, strong, figcaption, summary')]
    .filter(node => node.innerText && node.checkVisibility())
    .map(node => {
      const [a, b] = [light(parts(getComputedStyle(node).color)), light(ground(node))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.tagName, node.innerText.slice(0, 30)];
    }).filter(([contrast]) => contrast < 4.5);
})()"""


class Browser:
    """One tab of a browser, driven by the DevTools protocol."""

    def __init__(self, socket):
        self.socket, self.numbers, self.events, self.session = socket, itertools.count(1), [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        self.socket.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while True:
            answer = json.loads(self.socket.recv(timeout=LIMIT))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def evaluate(self, expression):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def show(self, path, width, scheme):
        """Load a page of a width; return what went wrong or out: messages, and addresses asked for."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + LIMIT
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < deadline, "the page did not load"
            self.evaluate("0")
        errors = [e["params"] for e in self.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
        errors += [e["params"] for e in self.events if e["method"] == "Runtime.consoleAPICalled"]
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return errors, [url for url in asked if not url.startswith("data:")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    profile = tmp_path_factory.mktemp("chromium")
    process = subprocess.Popen(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port_file, deadline = profile / "DevToolsActivePort", time.monotonic() + LIMIT
        while not (port_file.exists() and len(port_file.read_text().splitlines()) == 2):
            assert time.monotonic() < deadline, "the browser did not start"
            time.sleep(0.05)
        port, path = port_file.read_text().splitlines()
        with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, open_timeout=LIMIT) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(LIMIT)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report.render(made_up()), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_whole(browser, page, width, scheme):
    errors, asked = browser.show(page, width, scheme)
    assert errors == []
    assert asked == [page.as_uri()]
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate(OVERFLOW) == 0
    assert browser.evaluate("document.querySelector('.verdict strong').innerText") == "No evidence of an edge"
    pictures = "[...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect())"
    assert browser.evaluate(f"{pictures}.filter(box => box.width > 300 && box.height > 100).length") == 5
    dark = browser.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(c => c < 60)")
    assert dark == (scheme == "dark")
    assert browser.evaluate(FAINT) == []


def test_contents_lead_somewhere(browser, page):
    browser.show(page, 1280, "light")
    links = "[...document.querySelectorAll('nav a')]"
    assert browser.evaluate(f"{links}.length") >= 9
    assert browser.evaluate(f"{links}.every(a => document.getElementById(a.hash.slice(1)))")


@pytest.mark.parametrize("fault", ["<img src='http://192.0.2.1/x.png'>", "<script>throw Error('x')</script>"])
def test_faults_are_seen(browser, page, tmp_path, fault):
    """What the checks above look for, they would find."""
    path = tmp_path / "faulty.html"
    wide = "<div style='width: 2000px'>x</div>"
    path.write_text(page.read_text(encoding="utf-8").replace("</main>", f"{fault}{wide}</main>"), encoding="utf-8")
    errors, asked = browser.show(path, 390, "light")
    assert errors or len(asked) > 1
    assert browser.evaluate(OVERFLOW) > 0
