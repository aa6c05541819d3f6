"""What does the reader of foreign tables have to be told? The file ``audit.yaml``.

Tables from other tools rarely say who was trained from whom, with what reward and seed, in which
dtype values were stored, or which prompts are variants of one scenario. All of it is optional: what
is not said is found where that is unambiguous, and *not available* otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from moralscope.core.agents import Frozen
from moralscope.core.documents import read_yaml, validate
from moralscope.core.errors import ConfigError, nearest
from moralscope.core.schemas import SCHEMAS
from moralscope.core.tables import schema_of
from moralscope.evidence.hypotheses.grammar import Hypothesis

SETTINGS = "audit.yaml"
"""The settings file that lies among the tables."""


class AgentSetting(Frozen):
    """Who an agent is.

    Attributes:
        role: ``base`` (untrained), ``trained`` or ``policy`` (scripted, nothing inside).
        base: the agent that it was trained from; by default the only base there is.
        reward, seed, opponent: of its training; claims about a reward need several seeds.
        dtype: of its weights while it was measured.
    """

    role: Literal["base", "trained", "policy"] | None = None
    base: str | None = None
    reward: str | None = None
    seed: int | None = None
    opponent: str | None = None
    dtype: str | None = None


class AuditSettings(Frozen):
    """Everything that an audit may be told.

    Attributes:
        agents: by the names in the tables.
        dtype: in which values were stored, for all tables or by table.
        margin: equivalence margin of differences in log-odds, nats.
        alpha: family-wise level.
        hypotheses: statements to test again, by the grammar of hypotheses.
        scenarios: prompt to scenario, or the name of the column that holds the scenario.
        scenario_from_name: a prompt's scenario is its name without the number at its end.
        positive, negative: what the two options are called.
        columns: by table, column names as they are to column names as documented.
        values: by table, what the cells of a wide table are (a column of the table).
    """

    agents: Mapping[str, AgentSetting] = {}
    dtype: str | dict[str, str] | None = None
    margin: Annotated[float, Field(gt=0.0)] | None = None
    alpha: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    hypotheses: tuple[Hypothesis, ...] = ()
    scenarios: str | dict[str, str] | None = None
    scenario_from_name: bool = False
    positive: str | None = None
    negative: str | None = None
    columns: Mapping[str, Mapping[str, str]] = {}
    values: Mapping[str, str] = {}

    @field_validator("columns", "values")
    @classmethod
    def _known_tables(cls, value: dict[str, Any]) -> dict[str, Any]:
        for table, wanted in value.items():
            known = schema_of(table).dtypes()
            names: list[str] = [wanted] if isinstance(wanted, str) else list(wanted.values())
            for name in names:
                if name not in known and name != "scenario":
                    raise ConfigError(
                        f"The table {table!r} has no column {name!r}",
                        seen=name,
                        allowed=", ".join(known),
                        remedy=nearest(name, known),
                    )
        return value

    @field_validator("dtype")
    @classmethod
    def _known_dtype_tables(cls, value: str | dict[str, str] | None) -> str | dict[str, str] | None:
        for table in value if isinstance(value, dict) else ():
            if table not in SCHEMAS:
                schema_of(table)
        return value

    def dtype_of(self, table: str) -> str | None:
        """The dtype in which a table's values were stored; None where it was not said."""
        return self.dtype.get(table) if isinstance(self.dtype, dict) else self.dtype

    def renamed(self, table: str) -> Mapping[str, str]:
        """Columns of a table that the settings rename: theirs to ours."""
        return self.columns.get(table, {})


def read_settings(folder: Path, path: Path | None) -> tuple[AuditSettings, Path | None]:
    """The settings of an audit, and the file that they come from.

    Args:
        folder: the tables; ``audit.yaml`` there is read unless another file is named.
        path: that file.

    Raises:
        ConfigError: the file is missing although it was named, or says what it cannot mean.
    """
    if path is None:
        path = folder / SETTINGS
        if not path.is_file():
            return AuditSettings(), None
    return validate(AuditSettings, read_yaml(path), path.name), path
