import re

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.unit.deployments.conftest import ROOT
from trainyard.deployments.environment.lockfile import lock_command, without_torch_companions
from trainyard.deployments.environment.provision import count_requirements

FOLDER = ROOT / "deployments" / "environment"
LOCK = (FOLDER / "requirements.lock").read_text()


def locked():
    lines = [line for line in LOCK.splitlines() if line and not line.lstrip().startswith("#")]
    return [Requirement(line) for line in lines]


def direct():
    """Requirements of pyproject.toml, read without tomllib, which Python 3.10 has not."""
    text = (ROOT / "pyproject.toml").read_text()
    tables = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    lines = re.sub(r"#.*", "", tables)
    return [Requirement(item) for item in re.findall(r'"([^"]+)"', lines)]


def test_torch_companions_go_with_their_comments():
    resolved = "numpy==1\n    # via\n    #   nvidia-cublas\nnvidia-cublas==13\n    # via torch\ntriton==3\ntorch==2\n"
    assert without_torch_companions(resolved) == "numpy==1\n    # via\n    #   nvidia-cublas\ntorch==2\n"


def test_every_package_has_one_version_for_each_python():
    assert all(len(list(item.specifier)) == 1 and str(item.specifier).startswith("==") for item in locked())
    for version in ("3.10.13", "3.11.7", "3.12.1", "3.13.0"):
        env = {"python_full_version": version, "python_version": version.rsplit(".", 1)[0]}
        names = [item.name for item in locked() if item.marker is None or item.marker.evaluate(env)]
        assert len(names) == len(set(names))
        assert {canonicalize_name(item.name) for item in direct()} <= set(names)


def test_the_lock_fits_pyproject():
    wanted = {canonicalize_name(item.name): item.specifier for item in direct()}
    for item in locked():
        version = str(item.specifier).removeprefix("==")
        assert version in wanted.get(item.name, item.specifier), item


def test_the_lock_fits_the_pins():
    pins = [line for line in (FOLDER / "pins.txt").read_text().splitlines() if not line.startswith("#")]
    assert set(pins) <= set(LOCK.splitlines())


def test_the_lock_names_no_machine_and_no_index():
    assert "://" not in LOCK
    assert not re.search(r"(^|\s)/\w", LOCK)
    assert "+cpu" not in LOCK


def test_the_count_is_of_packages_not_of_lines():
    assert count_requirements("# made==by\na==1 ; x\n    # via b\na==2 ; y\nb==1\n") == 2


def test_the_lock_is_for_every_supported_python():
    assert {"--universal", "--all-extras", "3.10"} <= set(lock_command(ROOT))
