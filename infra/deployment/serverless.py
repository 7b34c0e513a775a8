"""Compile serverless.yml to CloudFormation with no account and no network.

python infra/deployment/serverless.py OUT_DIR

osls asks CloudFormation, while packaging, whether the layer changed since the last deployment, and has no option not to
(4.3.1, lib/plugins/aws/package/compile/layers.js). So that question is answered here: there is no such stack.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).parents[2]
OSLS = ROOT / ".build" / "node" / "node_modules" / "osls" / "bin" / "serverless.js"
COMPILED = "cloudformation-template-update-stack.json"
"""The compiled template's file in the folder of the package."""

_NO_SUCH_STACK = b"""<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><Error><Type>Sender</Type>\
<Code>ValidationError</Code><Message>Stack with id recsys does not exist</Message></Error>\
<RequestId>00000000-0000-0000-0000-000000000000</RequestId></ErrorResponse>"""


def package(service_dir: Path, out_dir: Path, *, stage: str = "dev") -> Path:
    """Run `osls package` on the serverless.yml in `service_dir`.

    Returns
    -------
    Path
        The compiled CloudFormation template, in `out_dir`.

    Raises
    ------
    subprocess.CalledProcessError
        osls refused; what it said is in `output`.
    """
    node = shutil.which("node")
    if node is None or not OSLS.exists():
        raise FileNotFoundError(f"osls needs node on the PATH and {OSLS}; `make osls` installs it.")
    with _cloudformation_without_stacks() as endpoint:
        subprocess.run(  # noqa: S603 - our own file, our own arguments
            [node, str(OSLS), "package", "--stage", stage, "--package", str(out_dir)],
            cwd=service_dir,
            env=_environment(endpoint, out_dir),
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )
    return out_dir / COMPILED


def _environment(endpoint: str, home: Path) -> dict[str, str]:
    """No profile, no real credentials, no region and no image of this machine's owner."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "AWS_ACCESS_KEY_ID": "offline",
        "AWS_SECRET_ACCESS_KEY": "offline",
        "AWS_ENDPOINT_URL": endpoint,
        "NODE_NO_WARNINGS": "1",
        "SLS_TELEMETRY_DISABLED": "1",
    }


@contextmanager
def _cloudformation_without_stacks() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _NoStacks)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _NoStacks(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(400)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(_NO_SUCH_STACK)))
        self.end_headers()
        self.wfile.write(_NO_SUCH_STACK)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        pass


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{package(ROOT, Path(sys.argv[1]).resolve())}\n")
    except subprocess.CalledProcessError as error:
        sys.exit(f"osls package failed:\n{error.output}")
