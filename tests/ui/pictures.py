"""Pictures of the web page for the documentation: python3 tests/ui/pictures.py SERVER FOLDER

SERVER has the rollouts of sample.py. scripts/picture-ui does all of it.
"""

import os
import sys

from playwright.sync_api import expect, sync_playwright

SERVER, FOLDER = sys.argv[1].rstrip("/"), sys.argv[2]

# Name, address, colours, and a text that is there when the page has read everything.
PICTURES = [
    ("rollouts", "rollouts", "light", "sound"),
    ("rollout", "rollout/ro-support-25", "light", "was paid back today"),
    ("tokens", "rollout/ro-support-10/tokens?color=mask", "light", "call"),
    ("compare", "compare?r=ro-support-21,ro-support-25", "dark", "they part here"),
]


def main():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"])
        for name, address, scheme, ready in PICTURES:
            page = browser.new_page(viewport={"width": 1200, "height": 640}, color_scheme=scheme, reduced_motion="reduce")
            page.goto(f"{SERVER}/ui/#/{address}")
            expect(page.locator("main")).to_contain_text(ready, timeout=20_000)
            if name == "tokens":
                page.locator(".branch-row").last.click()
            page.wait_for_load_state("domcontentloaded")
            # The last row that is read late is the verdict of the last rollout on the screen.
            page.wait_for_timeout(1500)
            page.screenshot(path=os.path.join(FOLDER, f"{name}.png"))
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
