"""Installs packages with uv, from where pip is configured to take them: `python tools/uv_install.py ARGUMENTS`.

The arguments are those of `uv pip install`; the packages come into the environment of the Python that runs this. Exits
with uv's code, or with 1 where pip has a setting that uv can not be given: then pip has to install.
"""

import ast
import os
import subprocess
import sys

# setting of pip → uv's variable, and what separates its values there
VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "no-index": ("UV_NO_INDEX", ""),
    "no-cache-dir": ("UV_NO_CACHE", ""),
    "cert": ("SSL_CERT_FILE", ""),
    "timeout": ("UV_HTTP_TIMEOUT", ""),
    "default-timeout": ("UV_HTTP_TIMEOUT", ""),
}
# change nothing of what is installed, or from where
WITHOUT_EFFECT = {
    "cache-dir",
    "config-file",
    "disable-pip-version-check",
    "no-color",
    "no-compile",
    "no-input",
    "no-python-version-warning",
    "progress-bar",
    "quiet",
    "require-virtualenv",
    "root-user-action",
    "verbose",
}
# of the files' sections pip reads these when it installs; the environment (PIP_...) comes last and wins
SECTIONS = ("global", "install", ":env:")


def uv_variables(listing: str) -> dict[str, str]:
    """The environment in which uv takes packages from where pip would, from what `pip config list` prints.

    Raises ValueError for a setting that is not known here, which might change what pip installs.
    """
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        section, _, setting = name.rpartition(".")
        if section in found:
            found[section][setting] = str(ast.literal_eval(value))
    settings = {setting: value for section in SECTIONS for setting, value in found[section].items()}
    unknown = settings.keys() - VARIABLES.keys() - WITHOUT_EFFECT
    if unknown:
        raise ValueError(f"uv can not be given what pip is configured with: {', '.join(sorted(unknown))}")
    variables = {}
    for setting in settings.keys() & VARIABLES.keys():
        name, separator = VARIABLES[setting]
        value = settings[setting]
        variables[name] = separator.join(value.split()) if separator else value
    return variables


def main(arguments: list[str]) -> int:
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, text=True, check=True
    )
    try:
        variables = uv_variables(listing.stdout)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    # pip takes the newest version that any of its indexes has
    command = ["uv", "pip", "install", "--python", sys.executable, "--index-strategy", "unsafe-best-match"]
    command += ["--no-config", *arguments]
    done = subprocess.run([sys.executable, "-m", *command], env=os.environ | variables, check=False)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
