"""Debian's chromium without a window, steered over its DevTools protocol: what a page loads, shows and says."""

import base64
import fcntl
import json
import os
import queue
import shutil
import subprocess
import threading
import time

from service import LIMIT, clean_environment, until

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """One window. Whatever the page asks for and whatever it complains about is kept."""

    def __init__(self, folder):
        program = next(filter(None, map(shutil.which, CHROMIUM)))
        # The protocol's own pipe: the browser reads requests at 3 and writes answers at 4, each ended by a 0 byte.
        theirs, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        # Away from 3 and 4, which the shell gives to the browser.
        low, (theirs, answers) = (theirs, answers), (fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs, answers))
        arguments = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        arguments += ["--disable-dev-shm-usage", "--disable-component-update", "--disable-background-networking"]
        arguments += ["--no-proxy-server", f"--user-data-dir={folder}/chromium", "--remote-debugging-pipe", "about:blank"]
        self.log = open(folder / "chromium.log", "w")
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{answers} {theirs}<&- {answers}>&-', "bash", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            pass_fds=(theirs, answers),
            env=clean_environment(),
        )
        for one in (*low, theirs, answers):
            os.close(one)
        self.requests, self.complaints, self._number, self._replies = [], [], 0, queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._session = None
        [page] = [one for one in self.ask("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.ask(f"{domain}.enable")

    def end(self):
        self.process.kill()
        self.process.wait(LIMIT)

    def ask(self, method, **parameters):
        self._number += 1
        request = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            request["sessionId"] = self._session
        os.write(self._requests, json.dumps(request).encode() + b"\0")
        end = time.monotonic() + LIMIT
        while True:
            answer = self._replies.get(timeout=max(0.1, end - time.monotonic()))
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def _listen(self):
        pending = b""
        while chunk := os.read(self._answers, 1 << 16):
            *messages, pending = (pending + chunk).split(b"\0")
            for message in map(json.loads, messages):
                self._replies.put(message) if "id" in message else self._seen(message)

    def _seen(self, event):
        parameters = event.get("params", {})
        match event["method"]:
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Log.entryAdded":
                entry = parameters["entry"]
                self.complaints.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")
            case "Runtime.exceptionThrown":
                self.complaints.append(f"exception: {parameters['exceptionDetails']}")
            case "Runtime.consoleAPICalled":
                self.complaints.append(f"console.{parameters['type']}: {parameters['args']}")

    def open(self, url):
        self.ask("Page.navigate", url=url)
        here = f"location.href === {json.dumps(url)} && document.readyState === 'complete'"
        until(f"{url} is loaded", lambda: self.run(here))

    def run(self, script):
        """What the script's value is, as JSON can say it."""
        ran = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in ran, (script, ran)
        return ran["result"].get("value")

    def look(self, width, scheme, height=900):
        """The window's width, and whether its user likes it light or dark."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, key, code=None):
        text = {"Enter": "\r"}.get(key, "")
        what = {"key": key, "code": code or key, "windowsVirtualKeyCode": {"Tab": 9, "Enter": 13}[key]}
        self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **what, **({"text": text} if text else {}))
        self.ask("Input.dispatchKeyEvent", type="keyUp", **what)

    def picture(self, file):
        """The whole page, however long it is."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        taken = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(taken["data"]))

    def named_for_screen_readers(self, role):
        """The names of all that has this role."""
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        found = (node for node in nodes if not node["ignored"] and node["role"]["value"] == role)
        return [node.get("name", {}).get("value", "") for node in found]
