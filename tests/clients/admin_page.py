"""The operators' page in Debian's chromium, over a real hsmac, and with all kinds of trouble at once.

    python admin_page.py PATH-OF-HSMAC [FOLDER-FOR-PICTURES]

The page is at a Unix socket, as it is in production; a tunnel of this file's stands where `ssh -L` stands there.
"""

import contextlib
import json
import pathlib
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading

from chromium import Browser
from service import DECLARED, LIMIT, Service, Suite, until
from troubled_state import TROUBLED

WIDTHS, SCHEMES = (400, 1600), ("light", "dark")
MARKUP = "<script>window.hacked=1</script><img src=x onerror=window.hacked=2>"
# A declared key whose object is not in the token, and whose description wants to be a program.
MISSING = f"""
[[key]]
key_id = "00000000-0000-4000-8000-000000000002"
object = "pkcs11:object=nothing"
key_spec = "HMAC_256"
description = "{MARKUP}"
"""


class Tunnel(socketserver.ThreadingTCPServer):
    """From a port of loopback to the socket. `told` stands in the place of /status.json, if it is set."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, path):
        self.path, self.told = str(path), None
        super().__init__(("127.0.0.1", 0), Passage)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://localhost:{self.server_address[1]}/"


class Passage(socketserver.StreamRequestHandler):
    """One request a connection: nobody pipelines here."""

    def handle(self):
        head = b""
        while line := self.rfile.readline():
            head += b"Connection: close\r\n" if line.lower().startswith(b"connection:") else line
            if line == b"\r\n":
                break
        if not head:
            return
        with socket.socket(socket.AF_UNIX) as there:
            try:
                there.connect(self.server.path)
            except OSError:
                return  # as `ssh -L` does when nobody listens there
            there.sendall(head)
            answer = b""
            while chunk := there.recv(1 << 16):
                answer += chunk
        if self.server.told is not None and head.startswith(b"GET /status.json"):
            status, _, _ = answer.partition(b"\r\n")
            body = json.dumps(self.server.told).encode()
            head = [status, b"Content-Type: application/json", b"Content-Length: %d" % len(body), b"Connection: close"]
            answer = b"\r\n".join(head) + b"\r\n\r\n" + body
        self.wfile.write(answer)


TEXT = "document.body.innerText"
SENTENCE = "document.getElementById('sentence').textContent"


def shown(browser, words, what=TEXT):
    try:
        until(f"the page says {words!r}", lambda: words in browser.run(what))
    except AssertionError as late:
        raise AssertionError(f"{late}: {browser.run(what)}") from late


def section(browser, name):
    return browser.run(f"document.getElementById({name!r}).innerText")


def a_real_hsmac(checks, service, browser, tunnel):
    browser.open(tunnel.url)
    # A key in trouble is one that was looked for.
    shown(browser, "One key cannot serve: ", SENTENCE)
    checks.holds("a title that a tab shows", browser.run("document.title").startswith("▲ hsmac: One key cannot serve"))
    checks.holds("what to do", "hsmac check" in section(browser, "advice"), section(browser, "advice"))
    checks.holds("the description is text", MARKUP in section(browser, "keys"), section(browser, "keys"))
    checks.holds("and so it is of a deletion", MARKUP in section(browser, "coming"), section(browser, "coming"))
    checks.equal("programs in the page", browser.run("document.scripts.length"), 1)
    checks.equal("pictures in the page", browser.run("document.images.length"), 0)
    checks.equal("nothing of it ran", browser.run("typeof window.hacked"), "undefined")
    checks.holds("the token is up", "● up" in section(browser, "tokens"), section(browser, "tokens"))
    checks.holds("both hosts", section(browser, "tokens").count("● host ") == 2, section(browser, "tokens"))
    checks.holds("who is refused", "AccessDeniedException" in section(browser, "refused"), section(browser, "refused"))
    checks.holds("no faults", "No call has failed" in section(browser, "faults"), section(browser, "faults"))
    # Samples are taken every ten seconds.
    lines = "[...document.querySelectorAll('#figures path.one')].length"
    until("the plots have lines", lambda: browser.run(lines) >= 2)
    rate = "document.querySelector('#figures b').textContent"
    checks.holds("calls are counted", browser.run(rate).endswith("/s") and browser.run(rate) != "0/s", browser.run(rate))


def everything_at_once(checks, browser, tunnel, pictures):
    browser.run("document.activeElement.blur()")
    tunnel.told = TROUBLED
    shown(browser, "Not ready: ", SENTENCE)
    for what, words in {
        "tokens": ["✖ away", "✖ pin refused", "▲ degraded", "Do: Look at the HSM", "C_Sign CKR_DEVICE_ERROR", "crash 4", "✖ host"],
        "keys": ["the token has no such object", "2 Unavailable"],
        "coming": ["the store was restored", "1 object of deleted keys", "in 7 days", "in 2 days"],
        "refused": ["user/reports", "ThrottlingException", "unknown"],
        "throttled": ["role/batch", "cryptographic_operations_symmetric", "12,031"],
        "faults": ["KeyUnavailableException", "Do"],
        "server": ["grpc.listen", "hsmac.reload"],
    }.items():
        for word in words:
            checks.holds(f"{what}: {word}", word in section(browser, what), section(browser, what))
    for width in WIDTHS:
        for scheme in SCHEMES:
            browser.look(width, scheme)
            name = f"{width} px, {scheme}"
            wide = browser.run("document.documentElement.scrollWidth")
            checks.holds(f"{name}: nothing is wider than the window", wide <= width, wide)
            checks.equal(f"{name}: text that is hard to read", browser.run(CONTRAST), [])
            if pictures:
                browser.picture(pictures / f"page-{width}-{scheme}.png")
    tunnel.told = None
    shown(browser, "One key cannot serve: ", SENTENCE)


# Each text with its colour against what is behind it: WCAG 2.1 wants 4.5, of large ones 3.
CONTRAST = """(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = (rgb) => { const [r, g, b] = rgb.map((value) => { const of = value / 255; return of <= .03928 ? of / 12.92 : ((of + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
  const behind = (element) => { for (let one = element; one; one = one.parentElement) { const [r, g, b, a = 1] = parse(getComputedStyle(one).backgroundColor); if (a === 1) return [r, g, b]; } return [255, 255, 255]; };
  const hard = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.getClientRects().length || element.closest("noscript")) continue;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const [one, two] = [light(parse(style.color).slice(0, 3)), light(behind(element))].sort((a, b) => b - a);
    const enough = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    if ((one + .05) / (two + .05) < enough) hard.add(`${walker.currentNode.data.trim().slice(0, 30)}: ${((one + .05) / (two + .05)).toFixed(2)}`);
  }
  return [...hard];
})()"""


def without_a_mouse(checks, browser):
    browser.run("document.activeElement.blur()")
    reached = []
    for _ in range(4):
        browser.press("Tab")
        reached.append(browser.run("document.activeElement.id || document.activeElement.textContent"))
    checks.holds("the advice's link and the button are reached", {"Show", "pause"} <= set(reached), reached)
    browser.run("document.getElementById('pause').focus()")
    browser.press("Enter")
    pressed = "document.getElementById('pause').getAttribute('aria-pressed')"
    checks.equal("Enter pauses", browser.run(pressed), "true")
    # Nothing happens, for as long as two looks take: there is no sign to wait for.
    before = len(browser.requests)
    browser.run("new Promise((done) => setTimeout(done, 5000))")
    checks.equal("requests while it is paused", len(browser.requests) - before, 0)
    browser.press("Enter")
    checks.equal("and goes on", browser.run(pressed), "false")
    until("it asks again", lambda: len(browser.requests) > before)


def for_screen_readers(checks, browser):
    headings = browser.named_for_screen_readers("heading")
    for heading in ("Tokens", "Keys", "What comes", "Who is refused", "Last faults of ours", "Server"):
        checks.holds(f"a heading: {heading}", heading in headings, headings)
    checks.holds("the sentence is told when it changes", "status" in browser.run("document.querySelector('h1').getAttribute('role') || document.querySelector('[role=status]').getAttribute('role')"))
    plots = browser.named_for_screen_readers("image")
    checks.holds("each plot says what it shows", len(plots) >= 4 and all("over the last hour" in name for name in plots), plots)
    columns = browser.named_for_screen_readers("columnheader")
    checks.holds("tables have headers", "Why it cannot serve" in columns, columns)
    checks.equal("the page's language", browser.run("document.documentElement.lang"), "en")


def nothing_from_elsewhere(checks, browser, tunnel):
    foreign = [url for url in browser.requests if not url.startswith((tunnel.url, "data:", "about:"))]
    checks.equal("requests to anywhere else", foreign, [])
    checks.equal("complaints in the console", browser.complaints, [])


def what_is_forbidden(checks, browser):
    """The policy holds against a program that came into the page some other way."""
    browser.run("""(() => { const one = document.createElement("script"); one.textContent = "window.hacked = 3"; document.body.append(one); })()""")
    browser.run("""(() => { const one = document.createElement("p"); one.setAttribute("onclick", "window.hacked = 4"); document.body.append(one); one.click(); })()""")
    tried = """fetch("http://127.0.0.1:9/").then(() => "went", (error) => "refused")"""
    checks.equal("a request to elsewhere", browser.run(tried), "refused")
    checks.equal("programs in the page's text", browser.run("typeof window.hacked"), "undefined")
    told = [one for one in browser.complaints if "Content Security Policy" in one]
    checks.holds("the browser says why", len(told) >= 3, browser.complaints)


def hsmac_ends(checks, service, browser):
    checks.equal("it ends", service.stop(), 0)
    shown(browser, "hsmac does not answer.", SENTENCE)
    checks.holds("what is below is old", "What is below is old" in section(browser, "advice"), section(browser, "advice"))


def prepared(hsmac, folder, ending):
    """An hsmac that serves, has a key in trouble, a deletion ahead, a refused caller, and load."""
    service = Service(hsmac, folder)
    ending.callback(lambda: service.process.kill())
    service.stop()
    with open(service.config, "a") as config:
        config.write(MISSING)
    service.serve(f"admin.socket={folder}/admin.sock")
    environment = service.environment | {"HSMAC_ENDPOINT": f"http://{service.grpc}"}

    def run(*arguments):
        return subprocess.run([hsmac, "kms", *arguments], capture_output=True, text=True, env=environment, timeout=LIMIT)

    made = run("create-key", "--key-spec", "HMAC_256", "--key-usage", "GENERATE_VERIFY_MAC", "--description", MARKUP)
    key = json.loads(made.stdout)["KeyMetadata"]["KeyId"]
    assert run("schedule-key-deletion", "--key-id", key).returncode == 0
    foreign = f"arn:aws:kms:us-east-1:999999999999:key/{DECLARED}"
    assert "AccessDeniedException" in run("describe-key", "--key-id", foreign).stderr
    load = [hsmac, *"bench grpc --key-id alias/demo --rate 50 --duration 1h".split()]
    load = subprocess.Popen(load, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ending.callback(load.wait)
    ending.callback(load.kill)
    return service


def suite(checks, hsmac, folder, pictures, ending):
    service = prepared(hsmac, folder, ending)
    tunnel = Tunnel(folder / "admin.sock")
    ending.callback(tunnel.shutdown)
    browser = Browser(folder)
    ending.callback(browser.end)
    browser.look(1600, "light")
    checks.part(a_real_hsmac, checks, service, browser, tunnel)
    checks.part(without_a_mouse, checks, browser)
    checks.part(for_screen_readers, checks, browser)
    checks.part(everything_at_once, checks, browser, tunnel, pictures)
    checks.part(nothing_from_elsewhere, checks, browser, tunnel)
    checks.part(what_is_forbidden, checks, browser)
    checks.part(hsmac_ends, checks, service, browser)
    return checks.end(service)


def main(hsmac, pictures=None):
    with contextlib.ExitStack() as ending:
        folder = ending.enter_context(tempfile.TemporaryDirectory(prefix="hsmac-clients-"))
        code = suite(Suite("the page"), hsmac, pathlib.Path(folder), pictures and pathlib.Path(pictures), ending)
    sys.exit(code)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve(), *sys.argv[2:])
