"""Schemas of how agents behave: across games, presentations and opponents, and beside the task.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {
    "trained_on": (
        "what an agent was trained on",
        "agent",
        """
        agent        | text | name  | a trained agent
        known        | flag | yes or no | whether its training is known; if not, what follows is what it is compared on
        families     | text | list  | prompt families, joined by commas
        templates    | text | list  | wordings
        labels       | text | list  | label assignments, cooperate label / defect label
        table_orders | text | list  | orders of the payoff table
        games        | text | list  | games
        """,
    ),
    "generalisation": (
        "an agent in a game under one presentation",
        "agent game labels table_order",
        """
        agent           | text    | name        | who decides
        game            | text    | name        | the game, with its own payoffs
        labels          | text    | words       | cooperate label / defect label
        table_order     | text    | one of      | order of the payoff table
        p_cooperate     | number? | probability | given a legal answer, mean over states and orders; null: some prompt has none
        low             | number? | probability | 95% interval over the memory-one states; null without spread
        high            | number? | probability | its upper end
        change_log_odds | number? | nats        | of defecting, agent minus base; null where there is no base or no log-odds
        legal_mass      | number  | probability | of a legal answer
        n_states        | integer | count       | memory-one states
        """,
    ),
    "regret": (
        "an agent's regret",
        "agent opponent_name protocol game kind labels",
        """
        agent                        | text    | name   | who plays
        opponent_name                | text    | name   | against whom
        protocol                     | text    | name   | exact (long-run average) or paper (sampled)
        game                         | text    | name   | the game
        kind                         | text    | one of | deontological or utilitarian
        labels                       | text    | words  | the two labels; exact regret averages over their assignments
        regret                       | number  | points | best attainable in a round minus obtained, mean over rounds
        low                          | number? | points | 95% interval: exact over presentations, sampled over episodes
        high                         | number? | points | its upper end
        regret_normalised_attainable | number? | share  | over the attainable range: deontological by 3, utilitarian by max - min of the four cells; null where all cells have one sum
        regret_normalised_published  | number? | share  | over the published range, illegal penalty included: by 6, by max + 6; null where no sum exceeds -6
        legal                        | number  | share  | of rounds with a legal answer
        n                            | integer | count  | decisions sampled, 0 for exact
        n_units                      | integer | count  | units of the interval
        """,
    ),
    "action_shares": (
        "a kind of action in an agent's play",
        "agent opponent_name protocol game labels own opponent_previous",
        """
        agent             | text    | name   | who plays
        opponent_name     | text    | name   | against whom
        protocol          | text    | name   | exact (long-run average) or paper (sampled)
        game              | text    | name   | the game
        labels            | text    | words  | the two labels
        own               | text    | one of | C, D or illegal
        opponent_previous | text    | C or D | the opponent's move before
        share             | number  | share  | of all rounds
        low               | number? | share  | 95% interval: exact over presentations, sampled over episodes
        high              | number? | share  | its upper end
        n                 | integer | count  | decisions sampled, 0 for exact
        n_units           | integer | count  | units of the interval
        """,
    ),
    "contrasts": (
        "a contrast of an agent's behaviour between situations",
        "agent contrast game family",
        """
        agent       | text    | name        | who decides
        contrast    | text    | name        | what is compared, see the documentation
        game        | text    | name        | the game
        family      | text    | name        | prompt family
        estimate    | number  | probability | difference in P(cooperate given legal), or one P where nothing is subtracted
        low         | number? | probability | 95% interval over units; null for one unit or no spread
        high        | number? | probability | its upper end
        change      | number? | probability | estimate minus that of the base; null for a base and scripted policies
        change_low  | number? | probability | 95% interval of the change over units
        change_high | number? | probability | its upper end
        change_log_odds | number? | nats    | the same contrast of log-odds of cooperating, agent minus base
        unit        | text    | name        | what the interval is over: wordings, texts or presentations
        n_units     | integer | count       | how many
        sentence    | text    | sentence    | what it says, with its figures
        """,
    ),
    "nearest": (
        "an agent's distance to a classic strategy",
        "agent game labels strategy",
        """
        agent       | text    | name   | who decides
        game        | text    | name   | the game
        labels      | text    | words  | the two labels, assignments averaged
        strategy    | text    | name   | the strategy
        distance    | number  | probability | root mean square over the four states
        low         | number? | probability | 95% jackknife interval over presentations; null for one or no spread
        high        | number? | probability | its upper end
        rank        | integer | count  | 1: the nearest; equal distances share it
        n_units     | integer | count  | presentations
        """,
    ),
    "robustness": (
        "an agent under one level of one way of asking",
        "agent factor level",
        """
        agent       | text    | name        | who decides
        factor      | text    | name        | family, wording, labels, assignment, option_order, answer_order, table_order, stem, system, chat_template, value or state
        level       | text    | name        | its level
        p_cooperate | number? | probability | given a legal answer, mean over everything else; null where none is legal
        low         | number? | probability | 95% t interval over units
        high        | number? | probability | its upper end
        log_odds    | number? | nats        | of defecting; null for scripted policies
        legal_mass  | number  | probability | of a legal answer
        change      | number? | probability | from the factor's reference level, paired over units; null for the reference
        change_low  | number? | probability | 95% t interval of the change
        change_high | number? | probability | its upper end
        unit        | text    | name        | what the intervals are over
        n_units     | integer | count       | how many
        n_prompts   | integer | count       | prompts averaged over
        """,
    ),
    "variance": (
        "a factor's share of the variance of an agent's decisions",
        "agent design factor",
        """
        agent       | text    | name   | who decides
        design      | text    | name   | the fully crossed set of prompts
        factor      | text    | name   | wording, order, label, state, their interactions, or total
        variance    | number? | nats squared | of the log-odds of defecting (probability squared for scripted policies); null where a prompt has no legal answer
        share       | number? | share  | of the total; null where the total is zero
        total_share | number? | share  | with every interaction that the factor takes part in; null for interactions
        low         | number? | share  | 95% interval of share: jackknife over wordings; null where undefined
        high        | number? | share  | its upper end
        effect      | number? | nats   | of label and order: mean log-odds (probability for scripted policies) under the labels as given minus swapped, or with D named first minus C
        effect_low  | number? | nats   | 95% t interval of effect over wordings
        effect_high | number? | nats   | its upper end
        levels      | integer | count  | of the factor; combinations for interactions
        n_prompts   | integer | count  | prompts of the design
        """,
    ),
    "play": (
        "two players in a repeated game, exactly",
        "agent other game labels noise",
        """
        agent             | text    | name        | who plays
        other             | text    | name        | agent or strategy it meets
        other_kind        | text    | one of      | agent or strategy
        game              | text    | name        | the game, as agent sees it
        labels            | text    | words       | the two labels; the agents' policies average over their assignments
        noise             | number  | probability | that a move is turned into the other one
        payoff            | number  | points      | of agent, long-run average a round
        payoff_other      | number  | points      | of the other
        cooperation       | number  | probability | of agent, among all rounds
        cooperation_other | number  | probability | of the other
        legal             | number  | probability | of a legal answer of agent
        low               | number? | points      | 95% interval of payoff over presentations
        high              | number? | points      | its upper end
        n_units           | integer | count       | presentations
        """,
    ),
    "exploitability": (
        "how far an agent can be exploited in a game",
        "agent game labels",
        """
        agent              | text    | name   | who is met
        game               | text    | name   | the game, as agent sees it
        labels             | text    | words  | the two labels
        best_response      | text    | moves  | what to play after CC, CD, DC, DD (exploiter's own move first)
        exploiter_payoff   | number  | points | of the best response, long-run average a round
        agent_payoff       | number  | points | what is left to the agent
        copy_payoff        | number  | points | what a copy of the agent in the exploiter's seat gets
        exploitability     | number  | points | exploiter_payoff - copy_payoff
        low                | number? | points | 95% interval over presentations
        high               | number? | points | its upper end
        n_units            | integer | count  | presentations
        """,
    ),
    "price_of_morality": (
        "what an agent gives up for the joint payoff",
        "agent other game labels",
        """
        agent        | text    | name   | who plays
        other        | text    | name   | strategy it meets
        game         | text    | name   | the game
        labels       | text    | words  | the two labels
        payoff       | number  | points | of agent, long-run average a round
        best_payoff  | number  | points | of the best response to the other, averaged like the agent's
        given_up     | number  | points | best_payoff - payoff, at least 0
        joint        | number  | points | both payoffs together
        joint_best   | number  | points | both, with the best response in the agent's seat
        joint_gained | number  | points | joint - joint_best
        price        | number? | points per point | given_up / joint_gained; null where nothing is gained
        """,
    ),
    "matches": (
        "a match, round by round",
        "game labels noise first second repetition",
        """
        game         | text    | name   | the game, as the first player sees it
        labels       | text    | words  | the two labels; the agents' policies average over their assignments
        noise        | number  | probability | that a move is turned into the other one
        first        | text    | name   | a player
        second       | text    | name   | the other
        repetition   | integer | count  | from 0; deterministic pairs have one
        rounds       | integer | count  | played
        first_moves  | text    | moves  | as played, C or D, a letter a round; x: an illegal answer, which repeats the last move
        second_moves | text    | moves  | the same
        first_score  | number  | points | mean a round
        second_score | number  | points | mean a round
        """,
    ),
    "standings": (
        "a player in a round-robin tournament",
        "game labels noise player",
        """
        game        | text    | name   | the game; where seats differ, players are scored in its first
        labels      | text    | words  | the two labels; the agents' policies average over their assignments
        noise       | number  | probability | that a move is turned into the other one
        player      | text    | name   | an agent or a strategy
        kind        | text    | one of | agent, native or axelrod
        rank        | integer | count  | 1: the highest score
        score       | number  | points | mean a round over all opponents, itself left out
        low         | number? | points | 95% t interval over opponents
        high        | number? | points | its upper end
        cooperation | number  | share  | of its rounds
        opponents   | integer | count  | met
        rounds      | integer | count  | a match
        repetitions | integer | count  | of matches that are not deterministic
        """,
    ),
    "dynamics": (
        "a player's share in a population, at one time",
        "game labels noise process player time",
        """
        game    | text   | name   | the game
        labels  | text   | words  | the two labels; the agents' policies average over their assignments
        noise   | number | probability | that a move is turned into the other one
        process | text   | name   | replicator
        player  | text   | name   | an agent or a strategy
        time    | number | 1 / points | of the process
        share   | number | share  | of the population
        """,
    ),
    "fixation": (
        "an invader in a resident population",
        "game labels noise invader resident population selection",
        """
        game       | text    | name   | the game
        labels     | text    | words  | the two labels; the agents' policies average over their assignments
        noise      | number  | probability | that a move is turned into the other one
        invader    | text    | name   | one player of this kind
        resident   | text    | name   | all others
        population | integer | count  | players
        selection  | number  | 1 / points | intensity: fitness is exp(selection * payoff)
        fixation   | number  | probability | that the invader's kind takes over (Moran process, exact)
        neutral    | number  | probability | the same without selection, 1 / population
        """,
    ),
    "answers": (
        "a sampled answer",
        "agent prompt sample",
        """
        agent        | text    | name   | who answers
        prompt       | text    | name   | to what
        sample       | integer | count  | from 0
        answer       | text    | text   | as generated, answer stem left out
        strict       | text    | one of | positive, negative or illegal: exactly an option, read to the length of the longest one
        tolerant     | text    | one of | positive, negative or illegal: the first option named, whatever stands around it
        finished     | flag    | yes or no | whether the model ended its answer
        log_p        | number? | nats   | of the answer's tokens, with the one that ends it; null where an interface does not tell
        n_tokens     | integer? | count | tokens, with the one that ends it; null where an interface does not tell
        """,
    ),
    "transcripts": (
        "a turn of a conversation with an agent",
        "agent prompt turn",
        """
        agent         | text    | name  | who is asked
        prompt        | text    | name  | with what it began
        turn          | integer | count | from 0
        role          | text    | one of | user, assistant or system
        topic         | text    | one of | decision, why or strategy
        text          | text    | text  | what was said
        tokens        | text    | list  | of an answer: JSON list of its tokens as text; else empty
        probabilities | text    | list  | of an answer: JSON list of their probabilities; else empty
        """,
    ),
    "metric_agreement": (
        "an agent's sampled answers against its log-odds",
        "agent family parser",
        """
        agent           | text    | name        | who answers
        family          | text    | name        | prompt family
        parser          | text    | one of      | strict or tolerant
        expected        | number? | share       | P(positive given legal) by the log-odds, mean over prompts
        observed        | number? | share       | of positive among legal answers, mean over prompts; null: none legal
        low             | number? | share       | 95% interval of observed minus expected over prompts
        high            | number? | share       | its upper end
        legal_expected  | number  | share       | legal mass
        legal_observed  | number  | share       | of sampled answers that were legal
        correlation     | number? | correlation | of the sampled share with P(positive given legal) over prompts; null without spread
        p               | number? | probability | exact test that samples are drawn from the probabilities scored
        n_prompts       | integer | count       | prompts with a legal answer and defined log-odds: those that shares are over
        n_answers       | integer | count       | sampled answers
        """,
    ),
    "similarity": (
        "how alike two agents decide",
        "first second family",
        """
        first         | text    | name   | an agent
        second        | text    | name   | another
        family        | text    | name   | prompt family
        divergence    | number  | nats   | Jensen-Shannon over positive, negative, neither; mean over scenarios
        low           | number? | nats   | 95% interval over scenarios
        high          | number? | nats   | its upper end
        total_variation | number | probability | mean over scenarios
        margin        | number  | nats   | what counts as alike, set beforehand
        p_equivalent  | number? | probability | one-sided test that the mean divergence reaches the margin; null for one scenario
        n_scenarios   | integer | count  | clusters
        """,
    ),
    "side_effects": (
        "what else a fine-tune changed",
        "agent measure",
        """
        agent   | text    | name   | the agent
        measure | text    | one of | kl, perplexity, length, repetition, distinct, finished or unrelated_decisions
        unit    | text    | name   | of the value
        value   | number  | unit   | of the agent
        base    | number? | unit   | the base's; null for the base itself, and for what compares the two
        change  | number? | unit   | value minus base
        low     | number? | unit   | 95% t interval over texts: of the change, of the value where base is null
        high    | number? | unit   | its upper end
        n_units | integer | count  | texts or prompts
        """,
    ),
}  # fmt: skip
