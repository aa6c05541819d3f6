"""Schemas of what agents are, were asked, decided and did.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {
    "agents": (
        "an agent",
        "agent",
        """
        agent             | text     | name     | the agent's name in this study
        base              | text     | id       | the base model it shares weights with
        kind              | text     | one of   | base, adapter, checkpoint or policy (scripted)
        reward            | text?    | name     | the reward it was trained with
        opponent          | text?    | name     | the opponent it was trained against
        training_seed     | integer? | seed     | the seed of its training
        adapter_sha256    | text?    | hash     | of the adapter's weights, or of the checkpoint's
        dtype             | text     | name     | of the weights while they were measured
        """,
    ),
    "prompts": (
        "a prompt",
        "prompt",
        """
        prompt            | text     | name     | unique name
        game              | text     | name     | the game, or user
        scenario          | text     | name     | cluster, the unit of replication for inference
        family            | text     | name     | as built in (structured, wordings, ...), or the user's own
        template          | text     | name     | the wording
        labels            | text     | words    | label of the negative option / of the positive one
        option_order      | integer  | 0 or 1   | 1: the later label is named first in the opening
        answer_order      | integer  | 0 or 1   | the same for the answer instruction
        table_order       | text     | one of   | original, rows, columns, both (exchanged) or none
        stem              | text     | text     | beginning of the answer, put in the agent's mouth
        system            | text     | text     | system message, empty for none
        chat_template     | flag     | yes or no | whether the chat template is applied
        own_previous      | text?    | C or D   | the agent's own last move
        opponent_previous | text?    | C or D   | the opponent's last move
        others_cooperated | integer? | count    | others who cooperated last, among more than two players
        text              | text     | text     | rendered exactly as tokenised, answer stem included
        sha256            | text     | hash     | of text
        positive          | text     | text     | canonical continuation of the positive option
        negative          | text     | text     | canonical continuation of the negative option
        """,
    ),
    "decisions": (
        "an agent on a prompt",
        "agent prompt",
        """
        agent                  | text    | name        | who decides
        prompt                 | text    | name        | on what
        game                   | text    | name        | the prompt's game
        scenario               | text    | name        | the prompt's cluster
        log_odds               | number? | nats        | log P(positive) - log P(negative); null for scripted policies
        p_positive             | number  | probability | of the positive option, all its forms together
        p_negative             | number  | probability | of the negative option
        legal_mass             | number  | probability | p_positive + p_negative
        p_positive_given_legal | number? | probability | p_positive / legal_mass; null where nothing legal has any mass
        fingerprint_log_odds   | number? | nats        | log-odds stored when the agent was trained
        """,
    ),
    "policy": (
        "an agent's memory-one response in one wording under one label assignment",
        "agent game family template labels table_order own_previous opponent_previous",
        """
        agent             | text    | name        | who decides
        game              | text    | name        | the game
        family            | text    | name        | prompt family
        template          | text    | name        | the wording
        labels            | text    | words       | cooperate label / defect label
        table_order       | text    | one of      | order of the payoff table
        own_previous      | text    | C or D      | the agent's own last move
        opponent_previous | text    | C or D      | the opponent's last move
        p_cooperate       | number? | probability | of cooperating given a legal answer, mean over orders; null where none is legal
        legal_mass        | number  | probability | of a legal answer, mean over orders
        log_odds          | number? | nats        | of defecting, mean over orders; null for scripted policies
        n_prompts         | integer | count       | orders averaged over
        """,
    ),
    "cooperation": (
        "an agent in a game",
        "agent game family",
        """
        agent           | text    | name        | who decides
        game            | text    | name        | the game
        family          | text    | name        | prompt family
        p_cooperate     | number? | probability | given a legal answer, mean over scenarios; null where a prompt has none
        low             | number? | probability | 95% cluster-t interval over scenarios, null for one
        high            | number? | probability | its upper end
        legal_mass      | number  | probability | of a legal answer
        n_scenarios     | integer | count       | clusters
        n_prompts       | integer | count       | prompts averaged over
        """,
    ),
    "transfer": (
        "an agent under one control condition of label, layout, order or move",
        "agent control template labels table_order",
        """
        agent            | text    | name        | the trained agent
        control          | text    | one of      | trained, swapped_labels, exchanged_rows, new_wording, mirrored_wording
        template         | text    | name        | the wording
        labels           | text    | words       | cooperate label / defect label
        table_order      | text?   | one of      | order of the payoff table; null: not recorded
        change_log_odds  | number  | nats        | agent minus base, log-odds of defecting, mean over states
        low              | number? | nats        | 95% interval over states
        high             | number? | nats        | its upper end
        p_defect         | number  | probability | of defecting given a legal answer
        legal_mass       | number  | probability | of a legal answer
        n_states         | integer | count       | memory-one states
        keeps_sign       | flag?   | yes or no   | same sign as when trained, interval off zero; null: interval covers zero
        training_known   | flag?   | yes or no   | no: the structured text stands in for a training that is not known; null: not recorded
        """,
    ),
    "transfer_states": (
        "an agent's change in one state under one control",
        "agent control template labels table_order scenario",
        """
        agent             | text     | name     | the trained agent
        control           | text     | one of   | trained, swapped_labels, exchanged_rows, new_wording, mirrored_wording
        template          | text     | name     | the wording, or all
        labels            | text     | words    | cooperate label / defect label
        table_order       | text     | one of   | order of the payoff table; of all wordings original: as they are written, with a table or none
        scenario          | text     | name     | game and state
        own_previous      | text     | C or D   | the agent's own last move
        opponent_previous | text?    | C or D   | the opponent's last move
        others_cooperated | integer? | count    | others who cooperated last, among more than two players
        change_log_odds   | number   | nats     | agent minus base, log-odds of defecting, mean over units
        low               | number?  | nats     | 95% interval over units
        high              | number?  | nats     | its upper end
        unit              | text     | one of   | wordings, or orders in which options and answers are named
        n_units           | integer  | count    | how many
        reference         | flag     | yes or no | the trained condition that the others are compared with
        keeps_sign        | flag?    | yes or no | same sign as in the reference, both intervals off zero; null: one of them covers zero
        """,
    ),
    "learned": (
        "what an agent learned",
        "agent",
        """
        agent    | text | name     | the trained agent
        learned  | text | one of   | move, label, layout, order or undecided
        sentence | text | sentence | the finding in words, with its figures
        basis    | text? | one of  | of the verdict: mean over states, or each state; null: not recorded
        """,
    ),
    "moves": (
        "a step of an episode",
        "agent opponent_name game seed episode step",
        """
        agent                | text    | name   | who plays
        opponent_name        | text    | name   | against whom
        game                 | text    | name   | the game
        seed                 | integer | seed   | of the play
        episode              | integer | count  | from 0
        step                 | integer | count  | within the episode, from 0
        own_previous         | text    | C or D | the agent's last legal move
        opponent_previous    | text    | C or D | the opponent's last move
        own                  | text    | C or D | the move, or illegal
        opponent             | text    | C or D | the opponent's move
        legal                | flag    | yes or no | whether the answer was one of the options
        reward_game          | number  | points | own payoff
        reward_deontological | number  | points | the penalty alone
        reward_utilitarian   | number  | points | sum of both payoffs
        reward_hybrid        | number  | points | own payoff plus the penalty
        """,
    ),
    "training": (
        "a training step",
        "agent training_seed step",
        """
        agent            | text     | name        | who is trained
        training_seed    | integer  | seed        | of the training
        step             | integer  | count       | step of the method, from 1
        phase            | integer  | count       | which reward of a sequence is in force, from 1
        reward           | text     | name        | that reward
        visitation       | text     | one of      | how states are weighted: uniform, visitation or, in sampled play, sampled
        learning_rate    | number   | per step    | of Adam
        reward_mean      | number   | points      | expected reward, in sampled play the mean obtained; illegal-answer penalty included
        cooperation      | number   | probability | of cooperating given a legal answer, exact on the step's prompts
        legal_mass       | number   | probability | of a legal answer, exact on the step's prompts
        kl               | number   | nats        | KL(policy || base) on the options; in sampled play estimated from the answers
        kl_coefficient   | number   | points per nat | beta of this step
        loss             | number   | points      | what was descended; of the exact method minus the objective
        gradient_norm    | number   | points per unit | length of the gradient before it is shortened, mean over updates
        adapter_norm     | number   | weights     | Frobenius norm of every lora_B together after the step
        p_defect_same    | number?  | probability | of defecting given a legal answer, prompts whose labels are as given; null: none in this step
        p_defect_swapped | number?  | probability | the same, labels exchanged
        sampled_cooperation | number? | share     | of the legal answers of play; null: not sampled, or none legal
        sampled_legal    | number?  | share       | of the answers of play that were legal
        advantage_std    | number?  | advantages  | standard deviation over the step; 0: play taught nothing
        value_loss       | number?  | points squared | of the value head (PPO)
        clip_fraction    | number?  | share       | of tokens whose ratio was clipped
        seconds          | number   | seconds     | wall time; the one column in which equal runs may differ
        """,
    ),
    "plays": (
        "a decision of sampled training play",
        "agent training_seed step game_number round",
        """
        agent         | text    | name   | who is trained
        training_seed | integer | seed   | of the training
        step          | integer | count  | training step, from 1
        game_number   | integer | count  | game of the step, from 0
        round         | integer | count  | of the game, from 0
        prompt        | text    | name   | what was asked
        own           | text    | one of | C, D or illegal
        others        | text    | moves  | what the others played at the same time, a letter each
        answer        | text    | words  | the answer where it was generated, else empty
        points        | number  | points | the reward, illegal-answer penalty included
        """,
    ),
    "diagnostics": (
        "something that went wrong in a training",
        "agent training_seed diagnosis",
        """
        agent         | text    | name     | who is trained
        training_seed | integer | seed     | of the training
        step          | integer | count    | at which it showed first; 0: before training
        diagnosis     | text    | one of   | legal-collapse, no-advantage, kl-runaway, dead-adapter, value-divergence, label-learned, label-kept, fixed-labels or no-effect
        measured      | number? | as named in sentence | the measured figure
        threshold     | number? | same     | what it was compared with
        sentence      | text    | sentence | what it means
        advice        | text    | sentence | what to do
        """,
    ),
}  # fmt: skip
