"""Schemas of what fine-tuning changed in the weights.

The form is described in ``core.schemas``. ``W`` is a weight of the base, ``dW`` the effective
update: what the agent multiplies by, minus ``W``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {
    "update_norms": (
        "an agent's update of one weight",
        "agent layer module",
        """
        agent          | text     | name        | whose update
        layer          | integer? | layer       | decoder layer from 0; null outside the layers
        module         | text     | name        | the linear layer's name within its decoder layer, or another parameter's of a full checkpoint
        norm           | number   | model units | Frobenius norm of dW; 0 where the weight was left as it is
        base_norm      | number   | model units | Frobenius norm of W
        relative_norm  | number?  | ratio       | norm / base_norm; null where W is zero
        spectral_norm  | number?  | model units | largest singular value of dW; null for parameters that are no linear layer
        effective_rank | number?  | directions  | exp of the entropy of the singular values' shares of their sum; null without an update
        stable_rank    | number?  | directions  | norm^2 / spectral_norm^2; null without an update
        rank           | integer? | count       | singular values above rounding; null for parameters that are no linear layer
        n_parameters   | integer  | count       | numbers that training could change here
        """,
    ),
    "update_spectra": (
        "a singular value of an agent's update of one linear layer",
        "agent layer module index",
        """
        agent          | text    | name        | whose update
        layer          | integer | layer       | decoder layer from 0
        module         | text    | name        | the linear layer
        index          | integer | count       | 1 for the largest
        singular_value | number  | model units | of dW
        share          | number  | share       | of norm^2: singular_value^2 / norm^2
        """,
    ),
    "update_overlap": (
        "the leading subspaces of two agents' updates of one linear layer",
        "agent_a agent_b layer module side k",
        """
        agent_a   | text    | name  | one agent
        agent_b   | text    | name  | the other
        layer     | integer | layer | decoder layer from 0
        module    | text    | name  | the linear layer; one that either left as it is has no row
        side      | text    | one of | outputs (left singular vectors: what the update writes) or inputs (right ones: what it reads)
        k         | integer | count | leading singular vectors of each
        overlap   | number  | share | mean squared cosine of the k principal angles
        expected  | number  | share | mean of the same over random directions in the spaces that the updates can reach
        null_low  | number  | share | of random directions; 2.5% of draws lie below
        null_high | number  | share | of random directions; 2.5% of draws lie above
        """,
    ),
    "update_distances": (
        "how two agents' updates of one linear layer lie to each other",
        "agent_a agent_b layer module",
        """
        agent_a  | text    | name         | one agent
        agent_b  | text    | name         | the other
        layer    | integer | layer        | decoder layer from 0
        module   | text    | name         | the linear layer
        inner    | number  | model units^2 | Frobenius inner product of both updates
        norm_a   | number  | model units  | Frobenius norm of the first
        norm_b   | number  | model units  | Frobenius norm of the second
        cosine   | number? | cosine       | inner / (norm_a norm_b); null where one of them is zero
        distance | number? | ratio        | norm of their difference / sqrt(norm_a^2 + norm_b^2): 1 where orthogonal; null where both are zero
        reach    | number? | share        | overlap of all inputs that the two adapters can read, 1 where A is the same; null where an update is not of low rank
        """,
    ),
    "update_directions": (
        "how much of an agent's update lies along a decision's axis in the residual stream",
        "agent axis layer module",
        """
        agent        | text    | name        | whose update
        axis         | text    | tokens      | the two answer tokens; swapping labels changes its sign alone
        layer        | integer | layer       | decoder layer from 0
        module       | text    | name        | the linear layer
        side         | text    | one of      | writes (its output goes to the stream) or reads (its input comes from there)
        norm         | number  | model units | Frobenius norm of dW
        share        | number? | share       | of norm^2 that lies along the axis; null without an update
        expected     | number  | share       | mean over random directions: 1 / dimension
        ratio        | number? | ratio       | share / expected
        null_high    | number? | share       | of random directions; 2.5% of draws lie above
        control      | number? | share       | median over axes of random token pairs
        control_high | number? | share       | of random token pairs; 2.5% of draws lie above
        """,
    ),
    "update_controls": (
        "how much of an agent's whole update lies along the axis of two random tokens",
        "agent axis side draw",
        """
        agent | text    | name   | whose update
        axis  | text    | tokens | the decision's axis that it is held against
        side  | text    | one of | writes or reads
        draw  | integer | count  | which random pair of tokens, from 0; the same for every agent
        share | number? | share  | of the summed norm^2 of all linear layers of this side; null without an update
        """,
    ),
}
