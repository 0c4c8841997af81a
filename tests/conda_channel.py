"""A conda channel made by hand in a folder, so that a real conda tool installs from it without a network."""

import hashlib
import io
import json
import tarfile

SUBDIR = "noarch"


def make_package(channel, name, version, files, depends=()):
    """Put a package into a channel, and its index anew.

    Args:
        channel: The channel's folder.
        name: The package's name.
        version: Its version.
        files: Path below the prefix to content; what lies below ``bin`` is executable.
        depends: Conda's match specifications of what it needs.
    """
    folder = channel / SUBDIR
    folder.mkdir(parents=True, exist_ok=True)
    index = {
        **{"name": name, "version": version, "build": "0", "build_number": 0, "depends": list(depends)},
        **{"arch": None, "platform": None, "subdir": SUBDIR, "noarch": "generic"},
    }
    paths = [
        {"_path": path, "path_type": "hardlink", "sha256": _sha256(text.encode()), "size_in_bytes": len(text.encode())}
        for path, text in files.items()
    ]
    info = {
        "info/index.json": json.dumps(index),
        "info/files": "".join(f"{path}\n" for path in files),
        "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}),
    }
    archive = folder / f"{name}-{version}-0.tar.bz2"
    with tarfile.open(archive, "w:bz2") as package:
        for path, text in {**info, **files}.items():
            member = tarfile.TarInfo(path)
            member.size = len(text.encode())
            member.mode = 0o755 if path.startswith("bin/") else 0o644
            package.addfile(member, io.BytesIO(text.encode()))
    content = archive.read_bytes()
    digests = {"md5": hashlib.md5(content, usedforsecurity=False).hexdigest(), "sha256": _sha256(content)}
    _index(channel, archive.name, {**index, **digests, "size": len(content)})


def _index(channel, archive, entry):
    path = channel / SUBDIR / "repodata.json"
    known = json.loads(path.read_text())["packages"] if path.exists() else {}
    content = {"info": {"subdir": SUBDIR}, "packages": {**known, archive: entry}, "packages.conda": {}}
    path.write_text(json.dumps(content))


def _sha256(content):
    return hashlib.sha256(content).hexdigest()
