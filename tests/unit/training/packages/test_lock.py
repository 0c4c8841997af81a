from trainyard.tasks.training.packages.lock import PackageLock, lock_components, lock_key, lock_text, read_report
from trainyard.tasks.training.packages.requirements import Requirements, add_line

REPORT = {
    "install": [
        {
            "metadata": {"name": "Some_Lib", "version": "1.5"},
            "is_direct": False,
            "download_info": {"url": "https://u:p@host/x.whl", "archive_info": {"hashes": {"sha256": "aa"}}},
        },
        {
            "metadata": {"name": "fork", "version": "2"},
            "is_direct": True,
            "download_info": {
                "url": "https://host/fork",
                "subdirectory": "py",
                "vcs_info": {"vcs": "git", "commit_id": "c0ffee", "requested_revision": "main"},
            },
        },
    ]
}


def request(*texts, options=()):
    found = Requirements(options=list(options))
    for text in texts:
        add_line(found, text, "a test")
    return found


def test_a_report_becomes_exact_requirements():
    lock = read_report(REPORT)
    assert [package.name for package in lock.packages] == ["fork", "some-lib"]
    assert lock.packages[0].requirement == "fork @ git+https://host/fork@c0ffee#subdirectory=py"
    assert lock.packages[1].requirement == "Some_Lib==1.5 --hash=sha256:aa"


def test_hashes_count_where_every_package_has_one():
    lock = read_report(REPORT)
    assert "--hash" not in lock_text(lock, [])
    hashed = PackageLock(packages=lock.packages[1:])
    assert lock_text(hashed, ["--pre"]) == "--pre\nSome_Lib==1.5 --hash=sha256:aa\n"


def test_versions_decide_a_training():
    assert lock_components(read_report(REPORT)) == {
        "package:fork": "fork @ git+https://host/fork@c0ffee#subdirectory=py",
        "package:some-lib": "1.5",
    }


def test_the_key_holds_the_request_and_what_is_installed():
    installed = {"torch": "2.13.0", "trainyard": "1"}
    key = lock_key(request("a>=1", "b"), installed)
    assert key.sha256 == lock_key(request("b", "a >= 1"), installed).sha256
    assert key.sha256 == lock_key(request("a>=1", "b"), {**installed, "trainyard": "2"}).sha256
    different = [
        lock_key(request("a>=2", "b"), installed),
        lock_key(request("a>=1"), installed),
        lock_key(request("a>=1", "b"), {**installed, "torch": "2.14.0"}),
        lock_key(request("a>=1", "b", options=["--pre"]), installed),
    ]
    assert len({key.sha256, *(each.sha256 for each in different)}) == 5
