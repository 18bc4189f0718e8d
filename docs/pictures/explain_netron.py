"""Draws explain_netron.png: an annotated model in Netron's own page, with the node chosen in which float32 ends."""

from __future__ import annotations

import base64
import tempfile
import time
from pathlib import Path

from explain import MODEL, started

from epsinas_onnx import explain
from epsinas_onnx.explanation.annotate import annotate

NODE = "stage0.cell3.edge0-1.conv"


def draw(path: Path) -> None:
    """Write the picture; it needs netron beside selenium."""
    import netron

    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "annotated.onnx"
        annotate(MODEL, explain(MODEL), file)
        host, port = netron.start(str(file), browse=False)
        driver = started()
        size = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(f"http://{host}:{port}")
        for _ in range(60):
            time.sleep(0.5)
            driver.execute_script("document.getElementById('message-button')?.click()")
            if driver.execute_script("return document.body.classList.contains('default')"):
                break
        time.sleep(2)
        script = """
            const wanted = arguments[0];
            const found = [...document.querySelectorAll('.graph-node')].find(one => one.id.endsWith(wanted));
            const target = found.querySelector('.node-item') || found;
            target.scrollIntoView({block: 'center', inline: 'center'});
            target.dispatchEvent(new MouseEvent('click', {bubbles: true}));
        """
        driver.execute_script(script, NODE)
        time.sleep(2)
        taken = driver.execute_cdp_cmd("Page.captureScreenshot", {})
        path.write_bytes(base64.b64decode(taken["data"]))
        driver.quit()
        netron.stop((host, port))


if __name__ == "__main__":
    draw(Path(__file__).with_suffix(".png"))
