"""The settings of a deployment: one TOML file, environment variables over it, secrets by file reference."""

import os
import tomllib
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from broker.aid_settings import AidSettings

PREFIX = "IDF_BROKER_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"


class SettingsWrong(Exception):
    """A setting cannot be used; the message says which, and never a secret's value."""


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
    dispatch_batch_max: int = Field(default=500, ge=1, le=2000)
    snapshot_bytes_max: int = Field(default=256 * 1024 * 1024, ge=1024)
    allow_loopback_sites: bool = False
    """For the demo and tests only: a site at a loopback address is refused elsewhere."""
    aid: AidSettings = Field(default_factory=AidSettings)
    """Rules of State aid: the table `[aid]`."""
    log_level: str = "info"

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
