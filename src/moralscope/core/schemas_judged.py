"""Schemas of what is concluded: gates, controls, designs, hypotheses, claims, error rates.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {
    "gates": (
        "a gate on a subject",
        "gate subject",
        """
        gate      | text    | name   | liveness, resolution, duplicates, completeness, ...
        subject   | text    | name   | agent, table or sweep that was checked
        measured  | number? | as named in advice | the measured figure
        threshold | number? | same   | what it was compared with
        passed    | flag?   | yes or no | null: not available
        advice    | text    | sentence | what it means and what to do
        """,
    ),
    "control_results": (
        "a control on a subject",
        "control subject",
        """
        control  | text    | name   | numerical, shuffled, planted, random_direction, planted_write, random_sites
        subject  | text    | name   | agent, pair or family of claims that it stands beside
        kind     | text    | one of | negative (nothing may be found) or positive (must be found)
        measured | number? | unit   | what was found
        low      | number? | unit   | 95% interval
        high     | number? | unit   | its upper end
        expected | number? | unit   | what it is compared with
        unit     | text    | name   | unit of the three
        n        | integer | count  | draws, prompts or studies that it rests on
        passed   | flag?   | yes or no | null: not available
        sentence | text    | sentence | what was done, what came out, what it means for the findings
        """,
    ),
    "design": (
        "a question that the tables could be asked",
        "question subject",
        """
        question   | text     | name   | checkpoints, reward, pair of rewards, wordings, sites, seeds, ...
        subject    | text     | name   | whom or what it is about
        unit       | text     | name   | unit of replication
        n          | integer  | count  | how many of them there are
        floor      | number?  | probability | smallest p that they can give
        level      | number?  | probability | what the floor must lie below
        needed     | integer? | count  | fewest units that could carry the claim, where a test exists
        needed_for_power | integer? | count | units for 80% power at a standardised effect of 1
        identified | flag     | yes or no | whether the units exist, in a number that could reject
        sentence   | text     | sentence | the same in words, with what would identify it
        """,
    ),
    "hypotheses": (
        "a hypothesis that was named",
        "id",
        """
        id         | text    | name   | as named in the study file or audit.yaml; the claim is hypothesis:ID
        statement  | text    | sentence | what it says, made from its fields
        quantity   | text    | name   | what it is about
        agents     | text    | names  | joined by commas; empty where none
        sites      | text    | sites  | joined by commas; empty where none
        direction  | text?   | one of | above, below, differs or zero
        margin     | number? | unit   | equivalence margin; null where a difference is claimed
        published  | number? | as the quantity | the figure that was published; null where none
        registered | flag    | yes or no | named before anything was measured
        basis      | text    | sentence | how that is known
        """,
    ),
    "claims": (
        "a claim",
        "id",
        """
        id         | text     | name   | stable identifier
        statement  | text     | sentence | the finding in words, made from the numbers
        estimate   | number?  | unit   | point estimate
        low        | number?  | unit   | 95% interval
        high       | number?  | unit   | its upper end
        unit       | text     | name   | unit of the estimate
        n_units    | integer  | count  | units of replication
        test       | text     | name   | test and null
        p          | number?  | probability | raw p
        p_adjusted | number?  | probability | corrected for everything in its family
        p_floor    | number?  | probability | smallest p that this design can reach
        q          | number?  | probability | of exploratory claims: false discovery rate among all that were tested
        n_tests    | integer? | count  | hypotheses in its family
        detectable | number?  | unit   | smallest effect found with 80% power after correction
        gates      | text     | list   | gates consulted and their result
        registered | flag     | yes or no | named before anything was measured (confirmatory)
        outcome    | text?    | one of | of a named hypothesis: confirmed, contradicted or open; null: none was named
        verdict    | text     | one of | supported, equivalent, not distinguishable from noise, artefact, not identified by this design
        reason     | text?    | sentence | why it has that verdict
        replicate  | text?    | name   | what its units of replication are
        query      | text     | query  | how to recompute the estimate from the tables
        """,
    ),
    "coverage": (
        "a question that an audit asks of tables",
        "question subject",
        """
        question | text | name   | gate, test or kind of claim
        subject  | text | name   | table or agent; empty: the whole folder
        ran      | flag | yes or no | whether it could be run
        sentence | text | sentence | what was done; or what is missing, and where it usually comes from
        """,
    ),
    "calibration": (
        "an error rate of a test under a condition",
        "test condition clusters quantity",
        """
        test       | text    | name   | the test or interval
        condition  | text    | one of | independent, clustered, heavy_tailed, rounded
        clusters   | integer | count  | units of replication in each simulated study
        quantity   | text    | one of | type_I, family_wise, false_discovery, coverage or power
        value      | number? | share  | of simulated studies; null: not applicable
        nominal    | number? | share  | what it should be; of power null
        attainable | number? | probability | largest size that the design allows at the nominal level
        limit      | number? | share  | nominal plus (coverage: minus) three Monte-Carlo standard errors
        runs       | integer | count  | simulated studies
        passed     | flag?   | yes or no | within the limit; null: not applicable, or power
        note       | text    | sentence | why it is not applicable; what was planted; empty otherwise
        """,
    ),
}  # fmt: skip
