"""What settings are made of: a field with its help text and range, and a base class that checks them."""

from __future__ import annotations

from dataclasses import asdict, field, fields
from typing import Any

from shic_cli.base.errors import SettingError


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    flag: str = "",
    variable: str = "",
) -> Any:
    """A dataclass field with its help text and range.

    `flag` is the name of its option, if it has another. `variable` is an environment variable that gives the
    value where the option does not.
    """
    limits = {"choices": choices, "low": low, "high": high}
    return field(default=default, metadata={"help": help, "flag": flag, "variable": variable, **limits})


class Checked:
    """A base class that checks the range and the choices of every field when an object is made."""

    def __post_init__(self) -> None:
        for member in fields(self):  # type: ignore[arg-type]
            value, meta = getattr(self, member.name), member.metadata
            name = "--" + member.name.replace("_", "-")
            if meta["choices"] and value not in meta["choices"]:
                raise SettingError(f"{name} {value}: is not one of {', '.join(meta['choices'])}", "")
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, (int, float)) and not (
                    _at_least(item, meta["low"]) and _at_most(item, meta["high"])
                ):
                    raise SettingError(
                        f"{name} {item}: is out of range", f"give {_range(meta['low'], meta['high'])}"
                    )

    def params(self) -> dict[str, Any]:
        """The settings as a dictionary that JSON can hold."""
        return asdict(self)  # type: ignore[call-overload]


def _at_least(value: float, low: float | None) -> bool:
    return low is None or value >= low


def _at_most(value: float, high: float | None) -> bool:
    return high is None or value <= high


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"{low} or more" if high is None else f"{high} or less"
