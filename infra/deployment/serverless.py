"""Compile serverless.yml to CloudFormation without an AWS account or a network.

python infra/deployment/serverless.py OUT_DIR

While packaging, osls calls CloudFormation to find out whether the layer changed since the last deployment, and no
option turns this off (4.3.1, lib/plugins/aws/package/compile/layers.js). Therefore a local server answers that call
with "stack does not exist".
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
from typing import Final

ROOT: Final = Path(__file__).parents[2]
OSLS: Final = ROOT / ".build" / "node" / "node_modules" / "osls" / "bin" / "serverless.js"
COMPILED: Final = "cloudformation-template-update-stack.json"
"""File name of the compiled template in the output directory."""

_NO_SUCH_STACK: Final = b"""<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><Error><Type>Sender</Type>\
<Code>ValidationError</Code><Message>Stack with id recsys does not exist</Message></Error>\
<RequestId>00000000-0000-0000-0000-000000000000</RequestId></ErrorResponse>"""


def package(service_dir: Path, out_dir: Path, *, stage: str = "dev") -> Path:
    """Run `osls package` on the serverless.yml in `service_dir`.

    Parameters
    ----------
    service_dir
        The folder with serverless.yml and the files that it reads.
    out_dir
        The folder for the compiled template and the state of osls.
    stage
        Name of the deployment.

    Returns
    -------
    Path
        The compiled CloudFormation template, in `out_dir`.

    Raises
    ------
    subprocess.CalledProcessError
        osls rejected serverless.yml; `output` holds its messages.
    FileNotFoundError
        Node.js or osls is not installed.
    """
    node = shutil.which("node")
    if node is None or not OSLS.exists():
        raise FileNotFoundError(f"osls needs node on the PATH and {OSLS}. Install Node.js and run `make osls`.")
    with _cloudformation_without_stacks() as endpoint:
        subprocess.run(  # noqa: S603 - the project's file, fixed arguments
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
    """Return a minimal environment, so that no AWS profile, credentials, region or image of the developer is used."""
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
    """Answers every CloudFormation request with "stack does not exist"."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(400)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(_NO_SUCH_STACK)))
        self.end_headers()
        self.wfile.write(_NO_SUCH_STACK)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        pass


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{package(ROOT, Path(sys.argv[1]).resolve())}\n")
    except subprocess.CalledProcessError as error:
        sys.exit(f"osls package failed:\n{error.output}")
