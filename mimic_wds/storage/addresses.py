"""Addresses of remote places and their credentials: found where the providers' own tools look, shown nowhere."""

import base64
import configparser
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

#: Schemes by provider, as obstore knows them.
SCHEMES = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    "gs": "gs",
    **dict.fromkeys(("az", "azure", "abfs", "abfss", "adl"), "az"),
    **dict.fromkeys(("http", "https"), "http"),
}

#: Variables that say where S3 is, the first that is set counts; as the AWS tools and obstore read them.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")

#: Variables that give credentials beside keys: roles of web identities, of containers (ECS, EKS), plain tokens.
_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)

#: Entries of a profile by the obstore option that they become.
_PROFILE = {
    "access_key_id": "aws_access_key_id",
    "secret_access_key": "aws_secret_access_key",
    "session_token": "aws_session_token",
    "region": "region",
    "endpoint": "endpoint_url",
}

#: What hands out the credentials of a machine on EC2 (AWS documentation, "instance metadata").
_METADATA = "169.254.169.254"

_USER = re.compile(r"(?<=://)[^/@\s\"']*@")
_QUERY = re.compile(r"\?[^\s\"')]*")


def mask(text: str) -> str:
    """`text` with the user part and the query of every URL in it hidden: both may hold a secret."""
    return _QUERY.sub("?***", _USER.sub("***@", text))


def split_url(url: str) -> tuple[str, str, str]:
    """Provider ("s3", "gs", "az", "http"), the URL without credentials, and the header that they are sent in, or "".

    Raises ValueError for a scheme that is not known, a signed URL, and keys in a bucket's URL.
    """
    parts = urlsplit(url)
    provider = SCHEMES.get(parts.scheme)
    shown = mask(url).rstrip("/")
    if provider is None:
        raise ValueError(f"{shown}: expected a folder or one of s3://, gs://, az://, https://, http://")
    if not parts.netloc.rpartition("@")[2]:
        raise ValueError(f"{shown}: names no bucket or server; expected like {parts.scheme}://NAME/path")
    if parts.query or parts.fragment:
        raise ValueError(f"{shown}: is a signed URL or one with a query, which names a single file; give the folder's")
    if "@" in parts.netloc and provider != "http" and parts.scheme not in ("abfs", "abfss"):  # container@account there
        raise ValueError(f"{shown}: holds credentials; give them in the environment or in a profile instead")
    user, at, host = parts.netloc.rpartition("@") if provider == "http" else ("", "", parts.netloc)
    header = "Basic " + base64.b64encode(unquote(user).encode()).decode() if at else ""
    return provider, urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")), header


def s3_options(endpoint: str, anonymous: bool, environment: Mapping[str, str] = os.environ) -> dict[str, str | bool]:
    """What obstore must be told of S3 that it does not read from the environment itself; holds credentials.

    In the order of the AWS tools: keys in the environment, those of the profile (AWS_PROFILE, or "default"), roles.
    Raises ValueError for a profile that is not there or has no plain keys, PermissionError without any credentials.
    """
    has_keys, has_role = "AWS_ACCESS_KEY_ID" in environment, any(name in environment for name in _ROLES)
    profile = aws_profile(environment)
    if anonymous or has_keys:
        profile = {key: value for key, value in profile.items() if key in ("region", "endpoint")}
    options: dict[str, str | bool] = {"skip_signature": True} if anonymous else {}
    if "AWS_REGION" in environment or "AWS_DEFAULT_REGION" in environment:
        profile.pop("region", None)
    from_environment = next((environment[name] for name in _ENDPOINTS if environment.get(name)), "")
    if where := endpoint or from_environment or profile.pop("endpoint", ""):
        options["endpoint"] = where
    options.update({key: value for key, value in profile.items() if key != "endpoint"})
    if not (anonymous or has_keys or has_role or "access_key_id" in options):
        _check_machine_role(environment)
    return options


def aws_profile(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The entries of the chosen profile, as options of obstore; empty where there is none. Raises ValueError."""
    home = Path(environment.get("HOME", "~")).expanduser() / ".aws"
    config = _ini(Path(environment.get("AWS_CONFIG_FILE") or home / "config"))
    keys = _ini(Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials"))
    wanted = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE")
    name = wanted or "default"
    entries: dict[str, str] = {}
    for file, section in ((config, name), (config, f"profile {name}"), (keys, name)):
        entries.update(file[section] if file.has_section(section) else {})
    if wanted and not entries:
        raise ValueError(f"the AWS profile {name!r} is in neither the config nor the credentials file")
    found = {option: entries[key] for option, key in _PROFILE.items() if key in entries}
    if wanted and "access_key_id" not in found and "AWS_ACCESS_KEY_ID" not in environment:
        raise ValueError(
            f"the AWS profile {name!r} has no aws_access_key_id; for one that logs in (sso, role, process) export its "
            f"keys first: eval $(aws configure export-credentials --profile {name} --format env)"
        )
    return found


def _ini(path: Path) -> configparser.ConfigParser:
    """A file of sections, empty if it is not there. Raises ValueError that quotes nothing of it."""
    file = configparser.ConfigParser(interpolation=None, default_section="\0", strict=False)
    try:
        file.read(path)
    except (configparser.Error, UnicodeDecodeError):
        raise ValueError(f"{path}: cannot be read as an AWS configuration file") from None
    return file


def _check_machine_role(environment: Mapping[str, str]) -> None:
    """Raise PermissionError unless this machine may have a role: soon, where obstore would ask for minutes."""
    address = urlsplit(environment.get("AWS_METADATA_ENDPOINT", f"http://{_METADATA}"))
    if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true":
        try:
            socket.create_connection((address.hostname or _METADATA, address.port or 80), timeout=1).close()
            return
        except OSError:
            pass
    raise PermissionError(
        "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or read a public bucket "
        "with --anonymous"
    )
