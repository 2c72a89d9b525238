"""What becomes of an award, in one line. It imports no Typer, so that the short way to `quota` is short."""

from cli.client import Row
from cli.output import one_line
from cli.units import hours_text, last_day

RISKS = {
    "runs_out": "runs out before its end",
    "unburnt": "much is left at this rate",
    "unburnable": "cannot be used up",
    "unused": "never used",
}


def outlook_text(forecast: Row) -> str:
    """Write `at 12 h a day the budget runs out on 2026-12-03`, or why that is not known."""
    return f"{_at_this_rate(forecast)}{_whatever_happens(forecast)}"


def risks_text(forecast: Row) -> str | None:
    """Write why somebody should look at an award; None: nobody need."""
    return ", ".join(RISKS.get(risk, one_line(risk)) for risk in forecast["risks"]) or None


def _at_this_rate(forecast: Row) -> str:
    burn = forecast["burn_credits_per_day"]
    if burn is None:
        return f"burn rate unknown: {one_line(forecast['burn_unknown'])}"
    rate = f"at {hours_text(burn)} a day"
    if forecast["runs_out_on"] is not None:
        return f"{rate} the budget runs out on {one_line(forecast['runs_out_on'])}"
    return f"{rate} {hours_text(forecast['left_at_end_credits'])} are left at its end, {last_day(forecast['end_at'])}"


def _whatever_happens(forecast: Row) -> str:
    unburnable = forecast["unburnable_credits"]
    return f"; {hours_text(unburnable)} cannot be used before then with the GPUs allowed at once" if unburnable else ""
