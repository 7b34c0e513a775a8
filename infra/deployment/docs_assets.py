"""Download Swagger UI and ReDoc from npm and store their assets, compressed, in the function `api`: `make docs-assets`.

`static/assets.json` records the versions and digests. A test compares the committed files with it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

STATIC: Final = Path(__file__).parents[2] / "functions" / "api" / "recsys_api" / "static"
PACKAGES: Final = {
    # Not ReDoc 3, which is twice as large and adds links to assistants of other services.
    "redoc@2.5.4": ("MIT", ["bundles/redoc.standalone.js"], ["LICENSE", "bundles/redoc.standalone.js.LICENSE.txt"]),
    "swagger-ui-dist@5.35.0": (
        "Apache-2.0",
        ["swagger-ui-bundle.js", "swagger-ui.css"],
        ["LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt"],
    ),
}
"""npm package → its licence, the files to copy and the files that contain the licence texts."""


def main() -> None:
    """Download the packages and write the assets, their digests and their licences."""
    digests, licences = {}, []
    for package, (licence, names, licence_names) in PACKAGES.items():
        with TemporaryDirectory() as folder:
            members = _download(package, Path(folder))
            for name in names:
                content = members[name]
                target = STATIC / f"{Path(name).name}.gz"
                target.write_bytes(gzip.compress(content, 9, mtime=0))
                digests[Path(name).name] = {
                    "package": package,
                    "licence": licence,
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
            licences += [f"== {package}: {name}\n\n{members[name].decode().strip()}\n" for name in licence_names]
    (STATIC / "assets.json").write_text(json.dumps(digests, indent=2, sort_keys=True) + "\n", "utf-8")
    (STATIC / "LICENSES.txt").write_text("\n".join(licences), "utf-8")


def _download(package: str, folder: Path) -> dict[str, bytes]:
    """Return the content of each file of an npm package, by name. npm verifies the digest of the package."""
    command = ["npm", "pack", package, "--silent", "--pack-destination", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - fixed arguments
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as packed:
        files = [member for member in packed.getmembers() if member.isfile()]
        return {member.name.removeprefix("package/"): _read(packed, member) for member in files}


def _read(packed: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = packed.extractfile(member)
    assert content is not None  # the member is a regular file
    return content.read()


if __name__ == "__main__":
    main()
