"""The settings of State aid: defaults with their source, ceilings by date, and slips that are named."""

from datetime import date
from pathlib import Path

import pytest
from aid_rules import NEW, OLD
from pydantic import ValidationError

from broker.aid_settings import REGISTER_COLUMNS, AidSettings
from broker.settings import CONFIG_VARIABLE, Settings, read_settings

ONE = {"from": "2024-01-01", "ceiling_euros": 1, "years": 3, "source": "x"}


def test_the_default_is_the_regulation_in_force() -> None:
    settings = AidSettings()
    assert settings.rules().ceilings == (NEW,)
    assert (settings.authority, settings.authority_siren) == ("Région Île-de-France", "237500079")
    assert list(settings.register_columns) == list(REGISTER_COLUMNS)


def test_an_older_regulation_stands_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "broker.toml"
    file.write_text(
        '[aid]\ndeclaration_days = 90\nauthority_siren = "237 500 079"\n'
        'register_columns = { beneficiary = "Beneficiary", amount_euros = "EUR" }\n'
        "[[aid.ceilings]]\nfrom = 2014-01-01\nuntil = 2023-12-31\nceiling_euros = 200000\nyears = 3\n"
        'source = "Regulation (EU) No 1407/2013, art. 3(2)"\n'
        "[[aid.ceilings]]\nfrom = 2024-01-01\nuntil = 2030-12-31\nceiling_euros = 300000\nyears = 3\n"
        'source = "Regulation (EU) 2023/2831, art. 3(2)"\n'
    )
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    settings = read_settings().aid
    rules = settings.rules()
    assert rules.ceilings == (OLD, NEW)
    assert rules.ceiling_on(date(2023, 12, 31)) == OLD
    assert rules.declaration_days == 90
    assert settings.register_columns == {"beneficiary": "Beneficiary", "amount_euros": "EUR"}
    assert settings.authority_siren == "237500079"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"celing": []}, "Extra inputs"),
        ({"authority_siren": "237500078"}, "SIREN"),
        ({"register_columns": {"siern": "SIREN"}}, "no field siern"),
        ({"register_columns": {}}, "at least 1"),
        ({"declaration_days": -1}, "greater than or equal to 0"),
        ({"ceilings": [{**ONE, "ceiling_euros": 0.5}]}, "integer"),
        ({"ceilings": [{**ONE, "years": 0}]}, "greater than"),
        ({"ceilings": [{"from": "2024-01-01", "ceiling_euros": 1, "years": 3}]}, "source"),
        (
            {"ceilings": [{**ONE, "from": "2024-01-02", "until": "2024-01-01"}]},
            "until lies before from",
        ),
    ],
)
def test_a_slip_is_named(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Settings(aid=wrong)  # type: ignore[arg-type]
