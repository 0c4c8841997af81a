"""The limit that Prefect's embedded server has to start, in processes of their own: Prefect reads settings once."""

import os
import subprocess
import sys

SHOW = "from prefect.settings import get_current_settings as s; print(s().server.ephemeral.startup_timeout_seconds)"
USE = "from trainyard import training_pipeline"


def limit(code, home, **changes):
    """What Prefect believes after some code."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env = {**clean, "PREFECT_HOME": str(home), **changes}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_it_has_time_where_our_flows_are_used(tmp_path):
    assert limit(f"from trainyard import Experiment\n{SHOW}", tmp_path) == 180


def test_it_has_time_where_prefect_was_imported_before(tmp_path):
    assert limit(f"import prefect\n{USE}\n{SHOW}", tmp_path) == 180


def test_the_users_own_limit_is_kept(tmp_path):
    own = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "7"}
    assert limit(f"{USE}\n{SHOW}", tmp_path, **own) == 7


def test_the_limit_of_the_users_profile_is_kept(tmp_path):
    profiles = 'active = "mine"\n[profiles.mine]\nPREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS = "8"\n'
    (tmp_path / "profiles.toml").write_text(profiles)
    assert limit(f"{USE}\n{SHOW}", tmp_path) == 8
