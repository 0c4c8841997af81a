"""Small wheels made by hand, so that real pip installs them without an index."""

import base64
import hashlib
import zipfile


def make_wheel(folder, name, version, *, requires=(), modules=None, scripts=()):
    """Write a pure-Python wheel.

    Args:
        folder: Where it goes.
        name: The distribution's name.
        version: Its version.
        requires: What it requires.
        modules: File name to content; by default one module that knows the version.
        scripts: Console scripts, as ``name = module:function``.
    """
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    files = modules or {f"{name.replace('-', '_')}.py": f"__version__ = {version!r}\n"}
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", *(f"Requires-Dist: {r}\n" for r in requires)]
    files = {**files, f"{info}/METADATA": "".join(lines)}
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if scripts:
        files[f"{info}/entry_points.txt"] = "[console_scripts]\n" + "".join(f"{line}\n" for line in scripts)
    record = "".join(f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in files.items())
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


def _digest(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def use_wheels(monkeypatch, folder):
    """Have pip know this folder and nothing else: no index, no configuration of the machine."""
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
