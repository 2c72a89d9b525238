"""Where the broker is and who we are: a TOML file that only its owner may read, and environment variables."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from cli.exits import Exit, Failure

SNAPSHOT_BYTES_MAX = 100 * 1024 * 1024
SNAPSHOT_FILES_MAX = 20_000


class Config(NamedTuple):
    """What a command needs to know. IDF_COMPUTE_URL and IDF_COMPUTE_TOKEN_FILE win over the file."""

    url: str | None = None
    token: str | None = None
    snapshot_bytes_max: int = SNAPSHOT_BYTES_MAX
    """Sum of the sizes of a folder's files, before packing."""
    snapshot_files_max: int = SNAPSHOT_FILES_MAX


def path() -> Path:
    """Give the file's place: IDF_COMPUTE_CONFIG, else idf-compute/config.toml under XDG_CONFIG_HOME."""
    if named := os.environ.get("IDF_COMPUTE_CONFIG"):
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "idf-compute" / "config.toml"


def load() -> Config:
    """Read the file and the environment. A token saved for one broker is never sent to another.

    Raises Failure: a file that others may read, that is no TOML, or an address that is no place for a token.
    """
    saved = load_saved()
    url = named_url() or saved.url
    token = saved.token if url == saved.url else None
    if token_file := os.environ.get("IDF_COMPUTE_TOKEN_FILE"):
        token = read_token(Path(token_file))
    return saved._replace(url=checked_url(url) if url else None, token=token)


def load_saved() -> Config:
    """Read the file alone. Raises Failure."""
    return _read(path())


def named_url() -> str | None:
    """Give the address that IDF_COMPUTE_URL names."""
    return os.environ.get("IDF_COMPUTE_URL")


def _read(file: Path) -> Config:
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            values = _parsed(opened.read(1024 * 1024), file)
    except (FileNotFoundError, NotADirectoryError):
        return Config()
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read {file}: {error.strerror}") from error
    if "token" in values and mode & 0o077:
        raise Failure(Exit.FORBIDDEN, f"others may read the token in {file}", f"chmod 600 {file}")
    return _config(values, file)


def _parsed(text: bytes, file: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text.decode())
    except ValueError as error:
        raise Failure(Exit.USAGE, f"{file} is not valid TOML: {error}") from error


def _config(values: dict[str, Any], file: Path) -> Config:
    snapshot = values.get("snapshot", {})
    url, token = values.get("url"), values.get("token")
    bytes_max = snapshot.get("size_bytes_max", SNAPSHOT_BYTES_MAX) if isinstance(snapshot, dict) else None
    files_max = snapshot.get("files_max", SNAPSHOT_FILES_MAX) if isinstance(snapshot, dict) else None
    texts_fit = all(value is None or isinstance(value, str) for value in (url, token))
    if not texts_fit or not isinstance(bytes_max, int) or not isinstance(files_max, int):
        raise Failure(Exit.USAGE, f"{file} is not understood", "url and token are texts, [snapshot] holds two numbers")
    return Config(url, token, bytes_max, files_max)


def checked_url(url: str) -> str:
    """Give an address without its trailing slash. Raises Failure unless https, or http on loopback."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment or "@" in parts.netloc:
        raise Failure(Exit.USAGE, f"{url!r} is no address of a broker", "write it as https://broker.example")
    if parts.scheme == "http" and not is_loopback(host):
        raise Failure(
            Exit.USAGE,
            f"{url!r} would send your token readable over the network",
            "use https; http is for this machine only (localhost)",
        )
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Say whether a host name means this machine; a name is believed only if it is localhost."""
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(file: Path) -> str:
    """Read a token from a file. Raises Failure."""
    try:
        return checked_token(file.read_text(encoding="ascii"))
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read the token file {file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise Failure(Exit.USAGE, f"{file} does not hold a token") from None


def checked_token(text: str) -> str:
    """Give a token without surrounding blanks. Raises Failure, which never shows it."""
    token = text.strip()
    if not token or len(token) > 512 or not all("!" <= character <= "~" for character in token):
        raise Failure(Exit.USAGE, "that is not a token", "a token is one line of letters, digits and signs")
    return token


def save(config: Config) -> Path:
    """Write the file anew, readable by its owner only (0600 in a 0700 folder), and give its place."""
    import json
    import tempfile

    file = path()
    lines = [f"{name} = {json.dumps(value)}" for name, value in _texts(config)]
    limits = f"[snapshot]\nsize_bytes_max = {config.snapshot_bytes_max}\nfiles_max = {config.snapshot_files_max}"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=".config-")
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write("\n".join([*lines, "", limits, ""]))
        Path(temporary).replace(file)
    except OSError as error:
        raise Failure(Exit.UNEXPECTED, f"cannot write {file}: {error.strerror}") from error
    return file


def _texts(config: Config) -> list[tuple[str, str]]:
    return [(name, value) for name, value in (("url", config.url), ("token", config.token)) if value]
