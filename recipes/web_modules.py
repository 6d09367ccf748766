"""Write the web app's third-party modules: python -m recipes.web_modules

The packages come from the npm registry that `npm` is configured for, at pinned versions and with pinned hashes. Names
of packages in import statements become relative paths, because browsers resolve no names and an inline import map would
need a weaker Content-Security-Policy. Nothing else is changed, except that references to source maps are removed.
"""

import base64
import hashlib
import json
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VENDOR = Path(__file__).parents[1] / "src" / "likeness" / "web" / "vendor"
CHECKSUMS = "checksums.json"
_SOURCE_MAP = re.compile(rb"\n?//# sourceMappingURL=\S+\n?\Z")
_IMPORTED = re.compile(rb'(from ?)"([@a-z][a-z/@-]*)"')


@dataclass(frozen=True)
class Package:
    """A package of the npm registry.

    Args:
        sha512: of its archive, base64, as package-lock.json has it.
        files: path in the package -> file here.
    """

    name: str
    version: str
    sha512: str
    files: Mapping[str, str]


PACKAGES = (
    Package(
        "preact", "11.2.0",
        "/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg==",
        {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "hooks.js", "LICENSE": "preact.LICENSE"},
    ),
    Package(
        "@preact/signals-core", "1.14.5",
        "vcRv7Ityz5JVmeiVqIluLFzT/PDS/AlhHUpw3/aUWqcVUs6bDGIPXE/6RSC4evBNWYvnniozg5Syfj33al3gkg==",
        {"dist/signals-core.mjs": "signals-core.js", "LICENSE": "signals-core.LICENSE"},
    ),
    Package(
        "@preact/signals", "2.11.4",
        "Rb+5RPo9gWSaHtzJeauhHxiC8KP/IF2DEPkHPEOGOnuy2wnJzRqyeLRankUCYd6ADqtxS6GnWGv6Ie343d8aYw==",
        {"dist/signals.mjs": "signals.js", "LICENSE": "signals.LICENSE"},
    ),
    Package(
        "htm", "3.1.1",
        "983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==",
        {"dist/htm.mjs": "htm.js", "LICENSE": "htm.LICENSE"},
    ),
    Package(
        "lean-qr", "2.7.4",
        "tlMPFfqhAAZN7+j/djRSvl/2+AYT2+7RRuyq8bvcbV8gMiENiscquQ9WTfCSyeEdxsVaEB+tU7e9nFZC63BFnQ==",
        {"index.mjs": "lean-qr.js", "LICENSE": "lean-qr.LICENSE"},
    ),
)  # fmt: skip
MODULES = {
    b"preact": b"./preact.js", b"preact/hooks": b"./hooks.js", b"@preact/signals-core": b"./signals-core.js",
}  # fmt: skip


def main() -> None:
    """Raises RuntimeError: an archive is not the pinned one."""
    VENDOR.mkdir(parents=True, exist_ok=True)
    written: dict[str, dict[str, str]] = {}
    for package in PACKAGES:
        for name, content in files_of(package).items():
            (VENDOR / name).write_bytes(content)
            written[name] = {
                "package": package.name, "version": package.version, "sha256": hashlib.sha256(content).hexdigest()
            }  # fmt: skip
    (VENDOR / CHECKSUMS).write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def files_of(package: Package) -> dict[str, bytes]:
    """File here -> its content. Raises RuntimeError: not the pinned archive."""
    with tempfile.TemporaryDirectory() as folder:
        asked = ["npm", "pack", f"{package.name}@{package.version}", "--pack-destination", folder]
        subprocess.run(asked, check=True, capture_output=True)
        (archive,) = Path(folder).glob("*.tgz")
        sha512 = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if sha512 != package.sha512:
            raise RuntimeError(f"expected {package.name} of sha512 {package.sha512}, got {sha512}")
        with tarfile.open(archive) as packed:
            found = {name: packed.extractfile(f"package/{path}") for path, name in package.files.items()}
            return {name: for_browsers(file.read()) for name, file in found.items() if file is not None}


def for_browsers(content: bytes) -> bytes:
    """A module whose imports are relative paths. Raises KeyError: it imports a package that is not here."""
    linked = _IMPORTED.sub(lambda found: b'%b"%b"' % (found[1], MODULES[found[2]]), content)
    return _SOURCE_MAP.sub(b"\n", linked)


if __name__ == "__main__":
    main()
