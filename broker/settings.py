"""The settings of a deployment: one TOML file, environment variables over it, secrets by file reference."""

import os
import tomllib
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from adapters.arrays import TASKS_MAX
from broker.aid_settings import AidSettings
from broker.certifications import NEEDS, Needs
from broker.letters import is_address
from broker.schemas.certifications import DataAxisValue, Scheme, Version

PREFIX = "IDF_BROKER_"
ARRAY_TASKS_MAX = 1000
CONFIG_VARIABLE = f"{PREFIX}CONFIG"


class SettingsWrong(Exception):
    """A setting cannot be used; the message says which, and never a secret's value."""


class CheckpointPlaceSetting(BaseModel):
    """A place for checkpoints: `folder:/path`, `https://host/path` or `postgresql+psycopg://user@host/name`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = Field(max_length=300)
    password_file: Path | None = None
    """For a PostgreSQL server: a file that holds the password."""

    @model_validator(mode="before")
    @classmethod
    def _a_bare_address(cls, value: object) -> object:
        return {"address": value} if isinstance(value, str) else value

    @field_validator("address")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        parts = urlsplit(value)
        _ = parts.port  # raises a ValueError of its own where it is no number
        if parts.password is not None or parts.query or (parts.username and parts.scheme in ("http", "https")):
            raise ValueError("must hold no secret: a password is read from password_file")
        if parts.scheme == "folder" and not parts.netloc and parts.path.startswith("/"):
            return value
        if parts.scheme in ("https", "http", "postgresql+psycopg") and parts.hostname:
            return value
        raise ValueError("must be folder:/path, https://host/path or postgresql+psycopg://user@host/name")


class Settings(BaseSettings):
    """Every setting has a default, so that the embedded broker runs with none."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid")

    data_dir: Path = Path.home() / ".local/share/idf-compute"
    """Everything that the embedded broker writes lies below it."""
    database_url: str | None = None
    """SQLAlchemy's form, without the password; a SQLite file in `data_dir` when left out."""
    database_password_file: Path | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8470, ge=0, le=65535)
    embedded_worker: bool = True
    """Whether `serve` also sends and watches jobs; with separate `worker` processes, say no."""
    reconcile_interval_s: float = Field(default=5, gt=0)
    dispatch_interval_s: float = Field(default=1, gt=0)
    """How long a held job waits at most where its submission did not wake the worker itself."""
    dispatch_timeout_s: int = Field(default=60, ge=5)
    """How long a batch may take at the site before it starts no further job."""
    lost_after_s: int = Field(default=300, ge=0)
    """How long a site must say that it does not know a job any more, until the broker gives it up."""
    dispatch_batch_max: int = Field(default=500, ge=1, le=2000)
    array_tasks_max: int = Field(default=ARRAY_TASKS_MAX, ge=1, le=TASKS_MAX)
    """How many tasks an array may have at most; a site may allow fewer (Slurm's MaxArraySize)."""
    recheck_days: int = Field(default=3, ge=0, le=30)
    """How long after its settlement a job is observed again, each hour, for late or revised usage; 0: never."""
    refund_alone_max_hours: int = Field(default=100, ge=0, le=10**9)
    """Normalised GPU-hours up to which one manager alone gives a job's credits back; above, a second person must."""
    snapshot_bytes_max: int = Field(default=256 * 1024 * 1024, ge=1024)
    checkpoint_interval_s: float = Field(default=60, gt=0)
    """How often the chain's head is signed and sent, where it moved."""
    checkpoint_places: list[CheckpointPlaceSetting] = []
    """Where signed heads go: places that this broker can add to and not rewrite; two at least."""
    allow_loopback_sites: bool = False
    """For the demo and tests only: a site at a loopback address is refused elsewhere."""
    aid: AidSettings = Field(default_factory=AidSettings)
    """Rules of State aid: the table `[aid]`."""
    certifications_needed: dict[DataAxisValue, dict[Scheme, Version]] = NEEDS  # type: ignore[assignment]
    """By a value of the data class: the schemes of which a site's service needs one, and their oldest versions."""
    log_level: str = "info"
    smtp_host: str | None = None
    """The mail server that takes the notices; none: they go to the log only."""
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_security: Literal["none", "starttls", "tls"] = "starttls"
    """`none` only where the server is this machine itself."""
    smtp_ca_file: Path | None = None
    """Certificates (PEM) that sign the mail server's; those of the machine when left out."""
    smtp_user: str | None = None
    smtp_password_file: Path | None = None
    mail_from: str | None = None
    """The address that notices come from; needed with `smtp_host`."""

    @field_validator("database_url")
    @classmethod
    def _bears_no_password(cls, value: str | None) -> str | None:
        try:
            password = make_url(value).password if value is not None else None
        except ArgumentError:
            raise ValueError("must have SQLAlchemy's form, such as postgresql+psycopg://user@host/name") from None
        if password is not None:
            raise ValueError("must not hold the password: write it to a file and name that in database_password_file")
        return value

    @model_validator(mode="after")
    def _mail_fits_together(self) -> "Settings":
        if self.smtp_host is not None and self.mail_from is None:
            raise ValueError("smtp_host needs mail_from, the address that notices come from")
        if (self.smtp_user is None) != (self.smtp_password_file is None):
            raise ValueError("smtp_user and smtp_password_file go together: give both or none")
        if self.mail_from is not None and not is_address(self.mail_from):
            raise ValueError("mail_from must be one plain address, such as calcul@iledefrance.fr")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read what is passed, then the environment, then the TOML file that IDF_BROKER_CONFIG names."""
        file = os.environ.get(CONFIG_VARIABLE)
        toml = TomlConfigSettingsSource(settings_cls, Path(file)) if file else None
        return tuple(source for source in (init_settings, env_settings, toml) if source is not None)

    @property
    def data_needs(self) -> Needs:
        """The same as placement reads it."""
        return {
            str(value): {str(scheme): version for scheme, version in some.items()}
            for value, some in self.certifications_needed.items()
        }

    def full_database_url(self) -> str:
        """Return the database's address, with the password from its file.

        Raises:
            SettingsWrong: the file cannot be read.
        """
        if self.database_url is None:
            return f"sqlite:///{self.data_dir / 'broker.sqlite3'}"
        url = make_url(self.database_url)
        if self.database_password_file is not None:
            try:
                url = url.set(password=self.database_password_file.read_text().strip())
            except (OSError, ValueError) as error:
                raise SettingsWrong(f"database_password_file {self.database_password_file}: {error}") from None
        return url.render_as_string(hide_password=False)


def read_settings() -> Settings:
    """Read the settings, and refuse what a slip of the pen would otherwise leave without effect.

    Raises:
        SettingsWrong: the file is missing or no TOML, or a variable of ours means no setting.
        ValidationError: a value does not fit.
    """
    known = {CONFIG_VARIABLE, *(f"{PREFIX}{name}".upper() for name in Settings.model_fields)}
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsWrong(f"{', '.join(unknown)}: no such setting")
    file = os.environ.get(CONFIG_VARIABLE)
    if file and not Path(file).is_file():
        raise SettingsWrong(f"{CONFIG_VARIABLE} names {file}, which is no file")
    try:
        return Settings()
    except tomllib.TOMLDecodeError as error:
        raise SettingsWrong(f"{file} is not valid TOML: {error}") from None
    except OSError as error:
        raise SettingsWrong(f"{file}: {error.strerror}") from None
