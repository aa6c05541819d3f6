"""Whose methods are these? The works that a report cites, and how they are written down."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MARK = re.compile(r"\[@([a-z0-9]+(?:; @[a-z0-9]+)*)\]")
"""A citation in a text, as Pandoc reads it: ``[@hu2022]`` or ``[@holm1979; @westfall1993]``."""


@dataclass(frozen=True)
class Reference:
    """A published work.

    Attributes:
        key: of its entry in a bibliography.
        authors: in full, ``Family, Given`` each, joined by ``and``.
        year: of publication.
        title: of the work.
        venue: where it appeared.
        address: where to find it.
        kind: of the entry: article, inproceedings, book or misc.
    """

    key: str
    authors: str
    year: int
    title: str
    venue: str
    address: str
    kind: str = "article"

    @property
    def short(self) -> str:
        """As it is named in a text: ``Hu et al., 2022``."""
        families = [name.partition(",")[0] for name in self.authors.split(" and ")]
        if len(families) > 2:
            return f"{families[0]} et al., {self.year}"
        return f"{' and '.join(families)}, {self.year}"

    @property
    def entry(self) -> str:
        """As BibTeX."""
        where = {"article": "journal", "inproceedings": "booktitle", "book": "publisher"}
        lines = (
            f"  author = {{{self.authors}}},",
            f"  title = {{{{{self.title}}}}},",
            f"  {where.get(self.kind, 'howpublished')} = {{{self.venue}}},",
            f"  year = {{{self.year}}},",
            f"  url = {{{self.address}}},",
        )
        return "\n".join((f"@{self.kind}{{{self.key},", *lines, "}"))


def _arxiv(number: str) -> str:
    return f"https://arxiv.org/abs/{number}"


_ALL = (
    Reference(
        "tennant2025", "Tennant, Elizaveta and Hailes, Stephen and Musolesi, Mirco", 2025,
        "Moral Alignment for LLM Agents", "International Conference on Learning Representations",
        _arxiv("2410.01639"), "inproceedings",
    ),
    Reference(
        "hu2022",
        "Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, Yuanzhi "
        "and Wang, Shean and Wang, Lu and Chen, Weizhu", 2022,
        "LoRA: Low-Rank Adaptation of Large Language Models",
        "International Conference on Learning Representations", _arxiv("2106.09685"),
        "inproceedings",
    ),
    Reference(
        "nostalgebraist2020", "nostalgebraist", 2020, "interpreting GPT: the logit lens",
        "LessWrong", "https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru", "misc",
    ),
    Reference(
        "elhage2021",
        "Elhage, Nelson and Nanda, Neel and Olsson, Catherine and Henighan, Tom and Joseph, "
        "Nicholas and others", 2021, "A Mathematical Framework for Transformer Circuits",
        "Transformer Circuits Thread", "https://transformer-circuits.pub/2021/framework/",
    ),
    Reference(
        "vig2020",
        "Vig, Jesse and Gehrmann, Sebastian and Belinkov, Yonatan and Qian, Sharon and Nevo, "
        "Daniel and Singer, Yaron and Shieber, Stuart", 2020,
        "Investigating Gender Bias in Language Models Using Causal Mediation Analysis",
        "Advances in Neural Information Processing Systems", _arxiv("2004.12265"),
        "inproceedings",
    ),
    Reference(
        "wang2023",
        "Wang, Kevin and Variengien, Alexandre and Conmy, Arthur and Shlegeris, Buck and "
        "Steinhardt, Jacob", 2023,
        "Interpretability in the Wild: a Circuit for Indirect Object Identification in GPT-2 Small",
        "International Conference on Learning Representations", _arxiv("2211.00593"),
        "inproceedings",
    ),
    Reference(
        "zhang2024", "Zhang, Fred and Nanda, Neel", 2024,
        "Towards Best Practices of Activation Patching in Language Models: Metrics and Methods",
        "International Conference on Learning Representations", _arxiv("2309.16042"),
        "inproceedings",
    ),
    Reference(
        "goldowskydill2023",
        "Goldowsky-Dill, Nicholas and MacLeod, Chris and Sato, Lucas and Arora, Aryaman", 2023,
        "Localizing Model Behavior with Path Patching", "arXiv", _arxiv("2304.05969"),
    ),
    Reference(
        "conmy2023",
        "Conmy, Arthur and Mavor-Parker, Augustine N. and Lynch, Aengus and Heimersheim, Stefan "
        "and Garriga-Alonso, Adrià", 2023,
        "Towards Automated Circuit Discovery for Mechanistic Interpretability",
        "Advances in Neural Information Processing Systems", _arxiv("2304.14997"),
        "inproceedings",
    ),
    Reference(
        "syed2023", "Syed, Aaquib and Rager, Can and Conmy, Arthur", 2023,
        "Attribution Patching Outperforms Automated Circuit Discovery", "arXiv",
        _arxiv("2310.10348"),
    ),
    Reference(
        "jafari2025",
        "Rezaei Jafari, Farnoush and Eberle, Oliver and Khakzar, Ashkan and Nanda, Neel", 2025,
        "RelP: Faithful and Efficient Circuit Discovery in Language Models via Relevance Patching",
        "arXiv", _arxiv("2508.21258"),
    ),
    Reference(
        "geiger2024",
        "Geiger, Atticus and Wu, Zhengxuan and Potts, Christopher and Icard, Thomas and Goodman, "
        "Noah D.", 2024,
        "Finding Alignments Between Interpretable Causal Variables and Distributed Neural "
        "Representations", "Causal Learning and Reasoning", _arxiv("2303.02536"), "inproceedings",
    ),
    Reference(
        "kornblith2019",
        "Kornblith, Simon and Norouzi, Mohammad and Lee, Honglak and Hinton, Geoffrey", 2019,
        "Similarity of Neural Network Representations Revisited",
        "International Conference on Machine Learning", _arxiv("1905.00414"), "inproceedings",
    ),
    Reference(
        "jain2019", "Jain, Sarthak and Wallace, Byron C.", 2019,
        "Attention is not Explanation",
        "Conference of the North American Chapter of the ACL", _arxiv("1902.10186"),
        "inproceedings",
    ),
    Reference(
        "westfall1993", "Westfall, Peter H. and Young, S. Stanley", 1993,
        "Resampling-Based Multiple Testing: Examples and Methods for p-Value Adjustment",
        "Wiley", "https://www.wiley.com/en-us/9780471557616", "book",
    ),
    Reference(
        "phipson2010", "Phipson, Belinda and Smyth, Gordon K.", 2010,
        "Permutation P-values Should Never Be Zero: Calculating Exact P-values When Permutations "
        "Are Randomly Drawn", "Statistical Applications in Genetics and Molecular Biology",
        "https://doi.org/10.2202/1544-6115.1585",
    ),
    Reference(
        "benjamini1995", "Benjamini, Yoav and Hochberg, Yosef", 1995,
        "Controlling the False Discovery Rate: A Practical and Powerful Approach to Multiple "
        "Testing", "Journal of the Royal Statistical Society, Series B",
        "https://doi.org/10.1111/j.2517-6161.1995.tb02031.x",
    ),
    Reference(
        "holm1979", "Holm, Sture", 1979,
        "A Simple Sequentially Rejective Multiple Test Procedure",
        "Scandinavian Journal of Statistics", "https://www.jstor.org/stable/4615733",
    ),
    Reference(
        "schuirmann1987", "Schuirmann, Donald J.", 1987,
        "A Comparison of the Two One-Sided Tests Procedure and the Power Approach for Assessing "
        "the Equivalence of Average Bioavailability",
        "Journal of Pharmacokinetics and Biopharmaceutics",
        "https://doi.org/10.1007/BF01068419",
    ),
)  # fmt: skip

REFERENCES: dict[str, Reference] = {reference.key: reference for reference in _ALL}
"""Every work that a report may cite, by key, in the order of its list."""


def cited(texts: Iterable[str]) -> tuple[Reference, ...]:
    """The works that texts cite, in the order of ``REFERENCES``."""
    keys = {key for text in texts for mark in MARK.findall(text) for key in mark.split("; @")}
    return tuple(reference for key, reference in REFERENCES.items() if key in keys)


def pieces(text: str) -> tuple[tuple[str, tuple[Reference, ...]], ...]:
    """A text cut at its citations: words, and the works that are cited after them."""
    found: list[tuple[str, tuple[Reference, ...]]] = []
    start = 0
    for mark in MARK.finditer(text):
        works = tuple(REFERENCES[key] for key in mark[1].split("; @"))
        found.append((text[start : mark.start()], works))
        start = mark.end()
    return (*found, (text[start:], ()))


def bibliography(references: Iterable[Reference]) -> str:
    """A BibTeX file."""
    return "\n\n".join(reference.entry for reference in references) + "\n"
