"""Tables that cannot be used are refused in one sentence that says where and what to do."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from moralscope.core.errors import ConfigError, MoralscopeError, TableError
from moralscope.evidence.auditing.folder import files_in
from moralscope.evidence.auditing.normalising import Normalised, normalise
from moralscope.evidence.auditing.settings import read_settings

GOOD = "agent,prompt,log_odds\nbase,p1,0.5\ngame,p1,1.5\nbase,p2,-0.5\ngame,p2,2.5\n"
SWEEP = "source,target,prompt,site,effect\nbase,game,p1,L0.mlp,0.5\nbase,game,p2,L0.mlp,0.25\n"


def read(folder: Path) -> Normalised:
    settings, _ = read_settings(folder, None)
    out = folder.parent / "tables"
    out.mkdir()
    return normalise(files_in(folder, settings), settings, out)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "There are no tables in .*an empty folder.*name each file after its table"),
        ({"a.txt": "x"}, "There are no tables in .*a.txt"),
        (
            {"decisions.csv": "agent,prompt\nbase,p1\n"},
            (
                "lacks a column: log_odds or p_positive with p_negative or p_positive_given_legal.*"
                "scoring both answers"
            ),
        ),
        (
            {"patching.csv": "source,target,prompt,effect\na,b,p1,1\n"},
            "'patching' lacks a column: site.*patching sweep.*THEIRS: site",
        ),
        (
            {"decisions.csv": GOOD.replace("2.5", "lots")},
            (
                "Column 'log_odds' of decisions.csv has values that are no number.*"
                "1, the first in row 4: 'lots'"
            ),
        ),
        (
            {"patching.csv": SWEEP.replace("0.25", "-inf")},
            "Column 'effect' of patching.csv has infinite values.*row 2: '-inf'",
        ),
        (
            {"patching.csv": SWEEP.replace("0.25", "NaN")},
            (
                "Column 'effect' of patching.csv has undefined values.*row 2: 'NaN'.*"
                "cannot be read as zero"
            ),
        ),
        (
            {"patching.csv": SWEEP.replace("p2", "")},
            "Column 'prompt' of patching.csv has undefined values.*row 2: None",
        ),
        (
            {"decisions.csv": ""},
            "^The file decisions.csv cannot be read. Seen: the file is empty. Allowed: a CSV file",
        ),
        (
            {"decisions.csv": GOOD.replace(",", ";").replace(".", ",")},
            "decisions.csv are separated by semicolons.*agent;prompt;log_odds.*decimal points",
        ),
        ({"decisions.csv": GOOD.replace(",", "\t")}, "decisions.csv are separated by tabs"),
        (
            {"decisions.csv": "agent,prompt,log_odds,log_odds\na,p1,1,2\n"},
            "decisions.csv has two columns of one name. Seen: log_odds",
        ),
        (
            {"decisions.csv": "agent,prompt,p_positive_given_legal\na,p1,0.5\na,p2,62\n"},
            "'p_positive_given_legal' of .* no probability.*1, the first in row 2: '62'.*percent",
        ),
        (
            {"decisions.csv": "agent,prompt,p_positive,p_negative\na,p1,-0.1,0.5\n"},
            "'p_positive' of decisions.csv has values that are no probability.*row 1: '-0.1'",
        ),
        ({"decisions.csv": "agent,prompt,log_odds\n"}, "'decisions' has no rows"),
        ({"decisions.parquet": "PAR1 or not"}, "decisions.parquet cannot be read.*Parquet file"),
        (
            {"decisions.csv": GOOD + "a,b,c,d,e\n"},
            "decisions.csv cannot be read.*a line with more fields than there are column names",
        ),
        (
            {"decisions.csv": GOOD, "Decision.tsv": GOOD.replace(",", "\t")},
            "The table 'decisions' is there twice.*Decision.tsv, decisions.csv",
        ),
        (
            {"decisions.csv": GOOD, "agents.csv": "agent,kind\nbase,base\ngme,adapter\n"},
            "Agent 'game' is in the table 'decisions' and not in 'agents'.*did you mean 'gme'",
        ),
        (
            {"decisions.csv": GOOD, "prompts.csv": "prompt,scenario\np1,s1\n"},
            "Prompt 'p2' is in the table 'decisions' and not in 'prompts'",
        ),
        (
            {"decisions.csv": GOOD, "prompts.csv": "prompt,scenario\np1,s1\np2,\n"},
            "Prompt 'p2' has no scenario, and others have one",
        ),
        (
            {
                "decisions.csv": "agent,prompt,scenario,log_odds\na,p1,s1,1\nb,p1,s2,2\n",
            },
            "Prompt 'p1' stands in two scenarios of the table 'decisions'.*s1 and s2",
        ),
        (
            {"decisions.csv": "agent,prompt,log_odds,reward\na,p1,1,x\na,p2,1,y\n"},
            "The rows of agent 'a' tell two things of its training",
        ),
        (
            {"decisions.csv": "prompt,base,game\np1,0.5,0.25\np2,0.5,0.75\n"},
            (
                "decisions.csv can be read in two ways.*log-odds.*probabilities.*"
                "values: {decisions: p_positive_given_legal}"
            ),
        ),
        (
            {"patching.csv": "source,target,prompt,site,L0.mlp\na,b,p1,L1.mlp,0.1\n"},
            "patching.csv can be read in two ways.*one row for each site.*one column for each",
        ),
        (
            {"stuff.csv": "agent,prompt,site,contribution,norm\na,p,L0.mlp,1,2\n"},
            "stuff.csv could be one of 2 tables.*read as attribution or as norms",
        ),
        (
            {"decisions.csv": "agent,model,prompt_id,item,log_odds\na,a,p,p,1\n"},
            "Two columns of the table 'decisions' mean 'prompt'.*prompt_id and item",
        ),
        (
            {"interactions.csv": "agent,site_a,site_b,r\na,L0.mlp,L1.mlp,0.5\n"},
            "'interactions' lacks a column: n.*on how many prompts",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(write, files: dict[str, str], said: str) -> None:
    with pytest.raises(TableError, match=f"(?s){said}"):
        read(write(files))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("agnets: {}", "There is no key 'agnets' in audit.yaml.*did you mean 'agents'"),
        ("agents: {gmae: {role: trained}}", "speak of agent 'gmae'.*did you mean 'game'"),
        ("agents: {game: {base: bse}}", "name 'bse' as a base.*did you mean 'base'"),
        ("agents: {game: {rool: base}}", "There is no key 'agents.game.rool'.*did you mean 'role'"),
        ("scenarios: promt", "a column that no table has.*scenarios: promt.*mean 'prompt'"),
        ("scenarios: {p9: s}", "give a scenario to prompt 'p9'"),
        ("columns: {decisions: {logit: log_odds}}", "rename a column.*does not have.*logit"),
        ("columns: {decisions: {x: logodds}}", "has no column 'logodds'.*did you mean 'log_odds'"),
        ("columns: {decision: {x: y}}", "no table of this name.*did you mean 'decisions'"),
        ("dtype: {decision: bf16}", "no table of this name.*did you mean 'decisions'"),
        ("alpha: 1.5", "The value of 'alpha' in audit.yaml"),
        ("margin: -1", "The value of 'margin' in audit.yaml"),
        ("hypotheses: [{id: a, quantity: chang, agents: [game]}]", "did you mean 'change'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(write, settings: str, said: str) -> None:
    with pytest.raises(MoralscopeError, match=f"(?s){said}"):
        read(write({"decisions.csv": GOOD, "audit.yaml": settings}))


def test_settings_that_were_named_must_be_there(write) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(write({}), Path("nowhere.yaml"))


def test_text_that_is_no_utf8_is_refused(write) -> None:
    folder = write({})
    (folder / "decisions.csv").write_bytes(GOOD.replace("game", "g\u00e4me").encode("latin-1"))
    with pytest.raises(TableError, match=r"decisions.csv cannot be read.*(?i:utf)"):
        read(folder)


def test_columns_of_other_tools_are_read_and_reported(write) -> None:
    text = "Model,prompt_id,logit_diff,seed,reward\nbase,p1,0.5,,\ngame,p1,1.5,3,Core\n"
    known = read(write({"decisions.csv": text}))
    assert "the column prompt_id is read as prompt" in known.notes["decisions"]
    assert "the column logit_diff is read as log_odds" in known.notes["decisions"]
    agents = pl.read_parquet(known.tables["agents"])
    assert agents.select("agent", "base", "kind", "reward", "training_seed").rows() == [
        ("base", "base", "base", None, None), ("game", "base", "checkpoint", "Core", 3),
    ]  # fmt: skip


def test_columns_that_are_not_used_are_named(write) -> None:
    known = read(
        write({"decisions.csv": GOOD.replace("\n", ",x\n").replace("odds,x", "odds,temp")})
    )
    assert "not used: temp" in known.notes["decisions"]


def test_probabilities_give_log_odds(write) -> None:
    text = "agent,prompt,p_positive,p_negative\na,p1,0.6,0.3\na,p2,0.2,0\n"
    known = read(write({"decisions.csv": text}))
    rows = known.scan("decisions").collect()
    assert rows.get_column("log_odds").to_list() == [pytest.approx(0.6931471805599453), None]
    assert rows.get_column("legal_mass").to_list() == pytest.approx([0.9, 0.2])
    given = rows.get_column("p_positive_given_legal").to_list()
    assert given == pytest.approx([2 / 3, 1.0])


def test_sites_may_be_told_by_layer_and_head(write) -> None:
    text = "agent,prompt,layer,head,norm\na,p1,0,3,1.5\na,p1,2.0,1,2.5\n"
    known = read(write({"norms.csv": text}))
    assert known.scan("norms").collect().get_column("site").to_list() == ["L0.h3", "L2.h1"]


def test_results_of_an_earlier_judgement_are_left_out_and_named(write) -> None:
    known = read(write({"decisions.csv": GOOD, "gates.csv": "gate,subject\na,b\n"}))
    gates = next(file for file in known.files if file.name == "gates.csv")
    assert not gates.table
    assert "made anew" in gates.why


def test_the_folder_of_a_run_is_read_through_its_tables(write) -> None:
    folder = write({"study.yaml": "x"})
    (folder / "tables").mkdir()
    (folder / "tables" / "decisions.csv").write_text(GOOD)
    assert read(folder).rows["decisions"] == 4


def test_a_table_of_another_name_is_recognised_by_its_columns(write) -> None:
    known = read(write({"results.csv": SWEEP, "who.csv": "agent,kind\nbase,base\ngame,adapter\n"}))
    assert {file.table for file in known.files} == {"patching", "agents"}


def test_gzip_and_tabs_are_read(write) -> None:
    folder = write({"patching.tsv": SWEEP.replace(",", "\t")})
    (folder / "decisions.csv.gz").write_bytes(gzip.compress(GOOD.encode()))
    known = read(folder)
    assert (known.rows["patching"], known.rows["decisions"]) == (2, 4)
    sweep = known.scan("patching").sort("prompt").collect()
    assert sweep.get_column("baseline_log_odds").to_list() == [1.5, 2.5]
    assert sweep.get_column("flipped").to_list() == [False, False]


def test_probabilities_may_overshoot_by_rounding(write) -> None:
    text = "agent,prompt,p_positive,p_negative\na,p1,1.0000001,1e-9\n"
    assert read(write({"decisions.csv": text})).rows["decisions"] == 1


def test_a_file_is_no_folder_of_tables(write) -> None:
    with pytest.raises(TableError, match="a file, no folder"):
        read(write({"decisions.csv": GOOD}) / "decisions.csv")
