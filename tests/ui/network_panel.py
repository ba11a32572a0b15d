"""Opens a HAR in the network panel of a real Chromium: python3 tests/ui/network_panel.py HAR [PICTURE]

Prints a JSON list with what the panel has of each request: method, URL, status, number of WebSocket messages, and the length of the
body. With PICTURE, it photographs the panel.
"""

import json
import os
import sys
import tempfile
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

# The modules of the panel, as Chromium serves them beside its page of the developer tools.
LOAD = """async text => {
    const [network, ui, logs] = await Promise.all(
        ["./panels/network/network.js", "./ui/legacy/legacy.js", "./models/logs/logs.js"].map(module => import(module)));
    await ui.ViewManager.ViewManager.instance().showView("network");
    const view = network.NetworkPanel.NetworkPanel.instance().networkLogView;
    await view.onLoadFromFile(new File([text], "rollout.har"));
    const requests = logs.NetworkLog.NetworkLog.instance().requests();
    return Promise.all(requests.map(async request => {
        const data = await request.requestContentData();
        const length = data.error ? 0 : data.isTextContent ? data.text.length : atob(data.base64).length;
        return [request.requestMethod, request.url(), request.statusCode, request.frames().length, length];
    }));
}"""


def main():
    har = Path(sys.argv[1]).read_text()
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        context = playwright.chromium.launch_persistent_context(
            folder, executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), viewport={"width": 1200, "height": 560},
            color_scheme="light", args=["--no-sandbox", "--remote-debugging-port=0", "--remote-allow-origins=*"])
        port = (Path(folder) / "DevToolsActivePort").read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as response:
            observed = next(target["id"] for target in json.load(response) if target["type"] == "page")
        panel = context.new_page()
        panel.add_init_script("localStorage.setItem('screencast-enabled', 'false')")
        panel.goto(f"http://127.0.0.1:{port}/devtools/inspector.html?ws=127.0.0.1:{port}/devtools/page/{observed}&panel=network")
        panel.get_by_role("tab", name="Network").wait_for()
        print(json.dumps(panel.evaluate(LOAD, har)))
        if len(sys.argv) > 2:
            panel.wait_for_timeout(1500)
            panel.screenshot(path=sys.argv[2])
        context.close()


if __name__ == "__main__":
    main()
