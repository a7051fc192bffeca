"""uv takes packages from where pip is configured to take them, or leaves them to pip."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "tools" / "uv_install.py"
spec = importlib.util.spec_from_file_location("uv_install", FILE)
uv_install = importlib.util.module_from_spec(spec)
spec.loader.exec_module(uv_install)


def test_the_settings_of_pip_become_variables_of_uv():
    listing = """\
:env:.cert='/etc/ssl/mine.crt'
:env:.disable-pip-version-check='1'
:env:.index-url='https://user:secret@mirror.example.org/simple'
global.extra-index-url='\\nfile:///opt/a/simple\\nfile:///opt/b/simple'
global.find-links='/opt/wheels /opt/more'
global.timeout='180'
"""
    assert uv_install.uv_variables(listing) == {
        "SSL_CERT_FILE": "/etc/ssl/mine.crt",
        "UV_DEFAULT_INDEX": "https://user:secret@mirror.example.org/simple",
        "UV_INDEX": "file:///opt/a/simple file:///opt/b/simple",
        "UV_FIND_LINKS": "/opt/wheels,/opt/more",
        "UV_HTTP_TIMEOUT": "180",
    }


def test_the_environment_wins_over_the_files_and_other_commands_settings_do_not_count():
    listing = ":env:.no-index='1'\nglobal.no-index='0'\ninstall.no-index='0'\ndownload.platform='any'\n"
    assert uv_install.uv_variables(listing) == {"UV_NO_INDEX": "1"}


@pytest.mark.parametrize(
    "setting", ["only-binary=':all:'", "proxy='http://10.0.0.1:3128'", "target='/elsewhere'"]
)
def test_a_setting_that_uv_can_not_be_given_is_named(setting):
    with pytest.raises(ValueError, match=f"configured with: {setting.partition('=')[0]}$"):
        uv_install.uv_variables(f"global.index-url='https://mirror.example.org'\ninstall.{setting}\n")


def test_nothing_configured_changes_nothing():
    assert uv_install.uv_variables("") == {}
